"""Store the counts of attempts at chunks in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.run_folder.lease_file import Claim, check_claim
from pipeline.run_folder.output_disk import output_errors
from pipeline.storage.folder import Folder

ATTEMPTS = "_attempts"


@dataclass(frozen=True, slots=True)
class StoredAttemptLog:
    """Implements `stages.guards.attempts.AttemptLog`. claim: of the driver the worker works for.
    restart: how often that driver had started its graph again.

    Each call checks the claim, so that a worker of an earlier driver cannot change the counts of
    the present one. Raises: LeaseLost.
    """

    folder: Folder
    claim: Claim
    restart: int = 0

    @property
    def epoch(self) -> int:
        """Epoch of the worker's driver."""
        return self.claim.epoch

    @property
    def worker(self) -> str:
        """Id of the Ray actor that runs this."""
        # Imported here, because a run that has nothing left to do needs no Ray.
        import ray

        worker: str | None = ray.get_runtime_context().get_actor_id()
        assert worker is not None, "not in an actor"
        return worker

    def read(self, name: str) -> bytes | None:
        """The content of this name; None if there is none."""
        check_claim(self.folder, self.claim)
        try:
            return self.folder.read(f"{ATTEMPTS}/{name}")
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replace the content of this name."""
        check_claim(self.folder, self.claim)
        with output_errors(self.folder):
            self.folder.write(f"{ATTEMPTS}/{name}", content)

    def delete(self, name: str) -> None:
        """Delete the content of this name."""
        check_claim(self.folder, self.claim)
        self.folder.delete(f"{ATTEMPTS}/{name}")
