"""Saying what a run waits for while it commits nothing: nodes to come, or what others hold."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from pipeline.config import RunConfig
from pipeline.driver.progress import Progress
from pipeline.driver.ray_session import reserved_cpus, reserved_gpus

_SAY_EVERY_S = 60.0
_LONG_S = 900.0  # without a chunk, though there is capacity
_LOOK_EVERY_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Amount:
    """GPUs and CPUs: of a cluster, or that a graph reserves."""

    gpus: float
    cpus: float

    def covers(self, other: Amount) -> bool:
        """Whether the other fits in."""
        # Shares of a CPU come back from Ray as sums of floats.
        return self.gpus + 1e-6 >= other.gpus and self.cpus + 1e-6 >= other.cpus

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.gpus - other.gpus, self.cpus - other.cpus)

    def __str__(self) -> str:
        return f"{self.gpus:g} GPUs and {self.cpus:.4g} CPUs"


class Watch:
    """Judges, look by look, whether a run that commits nothing waits for capacity.

    Ray does not tell whose the resources in use are. What was in use before our actors came, and at
    every look since, belongs to others.
    """

    def __init__(self, needs: Amount, now: float) -> None:
        self._needs = needs
        self._moved = self._said = self._able = now
        self._committed = 0
        self._others: Amount | None = None
        self._loading_said = False
        self._long_said = 0

    def look(self, now: float, committed: int, has: Amount, free: Amount) -> str:
        """What to say now, mostly nothing.

        now: seconds, by any clock. committed: chunks so far. has, free: the cluster's, and what of
        it nobody holds.
        """
        used, others = has - free, self._others
        if others is not None:
            used = Amount(min(used.gpus, others.gpus), min(used.cpus, others.cpus))
        self._others = used
        if committed != self._committed:
            self._committed, self._moved = committed, now
            self._loading_said, self._long_said = True, 0
        if now - max(self._moved, self._said) < _SAY_EVERY_S:
            return ""
        self._said = now
        if not (has - used).covers(self._needs):
            self._able, self._long_said = now, 0
        return self._reason(has, used, now - max(self._moved, self._able))

    def _reason(self, has: Amount, others: Amount, quiet_s: float) -> str:
        needs = self._needs
        if not has.covers(needs):
            return f"waiting for capacity: the graph needs {needs}, the cluster has {has}"
        if not (has - others).covers(needs):
            return (
                f"waiting for capacity: the graph needs {needs}, and of the cluster's {has} others "
                f"hold {others}: another job, or an earlier run whose actors are still alive"
            )
        if not self._loading_said:
            self._loading_said = True
            return "there is capacity for the graph: models load, or the first chunk is at work"
        if quiet_s < _LONG_S * (self._long_said + 1):
            return ""
        self._long_said = int(quiet_s // _LONG_S)
        return (
            f"no chunk was committed for {quiet_s / 60:.0f} minutes, though there is capacity; if "
            "`ray list actors` shows one that hangs, kill its process: its chunk is done again"
        )


@contextmanager
def watching(config: RunConfig, progress: Progress) -> Iterator[None]:
    """While the block runs, say on the progress stream what the run waits for, if it does."""
    needs = Amount(reserved_gpus(config), reserved_cpus(config))
    ended = threading.Event()
    thread = threading.Thread(
        target=_watch,
        args=(needs, progress, ended.wait, time.monotonic),
        name="waiting",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # A question to a head that is gone may be without an answer for long.
        thread.join(_LOOK_EVERY_S)


def _watch(
    needs: Amount,
    progress: Progress,
    wait: Callable[[float], bool],
    clock: Callable[[], float],
) -> None:
    watch = Watch(needs, clock())
    while True:
        try:
            has, free = _amount(ray.cluster_resources()), _amount(ray.available_resources())
        except (RayError, OSError, RuntimeError) as error:
            # A head that is gone is the graph's to report.
            log.debug("the cluster's resources are not known: %s", error)
        else:
            if said := watch.look(clock(), progress.n_chunks_done, has, free):
                progress.note(said)
        if wait(_LOOK_EVERY_S):
            return


def _amount(resources: dict[str, float]) -> Amount:
    return Amount(resources.get("GPU", 0), resources.get("CPU", 0))
