"""Attempts at chunks, kept in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.io import Storage
from pipeline.lease import check_epoch

ATTEMPTS = "_attempts"


@dataclass(frozen=True, slots=True)
class StoredAttempts:
    """What `stages.attempts` counts in. epoch: of the driver that the process works for."""

    folder: Storage
    epoch: int

    def read(self, name: str) -> bytes | None:
        """What was written last, if anything was; asked before work on a chunk begins.

        Raises:
            LeaseLost: the run has another driver by now, and this work would be for nothing.
        """
        check_epoch(self.folder, self.epoch)
        try:
            return self.folder.read(f"{ATTEMPTS}/{name}")
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replace it as a whole."""
        self.folder.write(f"{ATTEMPTS}/{name}", content)

    def delete(self, name: str) -> None:
        """Forget it."""
        self.folder.delete(f"{ATTEMPTS}/{name}")
