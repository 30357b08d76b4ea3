"""Attempts at chunks, kept in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.run_folder.lease_file import Claim, check_claim
from pipeline.storage.folder import Folder

ATTEMPTS = "_attempts"


@dataclass(frozen=True, slots=True)
class StoredAttempts:
    """What `stages.guards.attempts` counts in. claim: of the driver that the process works for.

    Each call asks whose the run is, so that a worker of an earlier driver cannot overwrite or
    forget what is counted for the present one. Raises: LeaseLost.
    """

    folder: Folder
    claim: Claim

    @property
    def epoch(self) -> int:
        """Of the driver."""
        return self.claim.epoch

    @property
    def worker(self) -> str:
        """The actor's id."""
        # Here: a run that has nothing left to do needs no Ray.
        import ray

        worker: str | None = ray.get_runtime_context().get_actor_id()
        assert worker is not None, "no actor"
        return worker

    def read(self, name: str) -> bytes | None:
        """What was written last, if anything was."""
        check_claim(self.folder, self.claim)
        try:
            return self.folder.read(f"{ATTEMPTS}/{name}")
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replace it as a whole."""
        check_claim(self.folder, self.claim)
        self.folder.write(f"{ATTEMPTS}/{name}", content)

    def delete(self, name: str) -> None:
        """Forget it."""
        check_claim(self.folder, self.claim)
        self.folder.delete(f"{ATTEMPTS}/{name}")
