"""Report what a run waits for while it commits nothing: new nodes, or resources in use."""

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

REPORT_EVERY_S = 60.0
_LONG_S = 900.0  # without a committed chunk, though there is capacity
_POLL_EVERY_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """Numbers of GPUs and of CPUs: of a cluster, or reserved by a graph."""

    gpus: float
    cpus: float

    def covers(self, other: Resources) -> bool:
        """Whether these are at least as many as the other ones, of both kinds."""
        # Ray adds up fractions of a CPU in floating point.
        return self.gpus + 1e-6 >= other.gpus and self.cpus + 1e-6 >= other.cpus

    def __sub__(self, other: Resources) -> Resources:
        return Resources(self.gpus - other.gpus, self.cpus - other.cpus)

    def __str__(self) -> str:
        return f"{self.gpus:g} GPUs and {self.cpus:.4g} CPUs"


class CapacityWatch:
    """Decides from repeated observations whether a run that commits nothing waits for capacity.

    Ray does not report which job holds a resource. What was in use at the first observation, before
    our actors started, and at every later one is counted as held by others.

    needs: what the graph reserves. now: seconds, by any clock.
    """

    def __init__(self, needs: Resources, now: float) -> None:
        self._needs = needs
        self._last_commit = self._last_report = self._capacity_since = now
        self._n_committed = 0
        self._others: Resources | None = None
        self._loading_reported = False
        self._n_long_reported = 0

    def observe(self, now: float, n_committed: int, total: Resources, free: Resources) -> str:
        """The message to print now; empty if there is none.

        now: seconds, by the same clock. n_committed: chunks so far. total, free: resources of the
        cluster, and those of them that are free.
        """
        used, others = total - free, self._others
        if others is not None:
            used = Resources(min(used.gpus, others.gpus), min(used.cpus, others.cpus))
        self._others = used
        if n_committed != self._n_committed:
            self._n_committed, self._last_commit = n_committed, now
            self._loading_reported, self._n_long_reported = True, 0
        if now - max(self._last_commit, self._last_report) < REPORT_EVERY_S:
            return ""
        self._last_report = now
        if not (total - used).covers(self._needs):
            self._capacity_since, self._n_long_reported = now, 0
        return self._message(total, used, now - max(self._last_commit, self._capacity_since))

    def _message(self, total: Resources, others: Resources, quiet_s: float) -> str:
        needs = self._needs
        if not total.covers(needs):
            return f"waiting for capacity: the graph needs {needs}, the cluster has {total}"
        if not (total - others).covers(needs):
            return (
                f"waiting for capacity: the graph needs {needs}, and of the cluster's {total} "
                f"others hold {others}: another job, or an earlier run whose actors are still alive"
            )
        if not self._loading_reported:
            self._loading_reported = True
            return (
                "there is capacity for the graph: models are loading, or the first chunk is being "
                "processed"
            )
        if quiet_s < _LONG_S * (self._n_long_reported + 1):
            return ""
        self._n_long_reported = int(quiet_s // _LONG_S)
        return (
            f"no chunk was committed for {quiet_s / 60:.0f} minutes, though there is capacity; if "
            "`ray list actors` shows an actor that hangs, kill its process: its chunk is done again"
        )


@contextmanager
def reporting_capacity(config: RunConfig, progress: Progress) -> Iterator[None]:
    """While the block runs, print to the progress stream what the run waits for, if it waits."""
    needs = Resources(reserved_gpus(config), reserved_cpus(config))
    ended = threading.Event()
    thread = threading.Thread(
        target=watch_capacity,
        args=(needs, progress, ended.wait, time.monotonic),
        name="capacity-watch",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # A request to a head that is gone may take long to fail; the thread is a daemon.
        thread.join(_POLL_EVERY_S)


def watch_capacity(
    needs: Resources,
    progress: Progress,
    wait: Callable[[float], bool],
    clock: Callable[[], float],
) -> None:
    """Observe the cluster and print messages until `wait` returns true.

    wait: waits for a number of seconds; whether to end. clock: returns seconds.
    """
    watch = CapacityWatch(needs, clock())
    while True:
        try:
            total = _resources(ray.cluster_resources())
            free = _resources(ray.available_resources())
        except (RayError, OSError, RuntimeError) as error:
            # If the head is gone, the graph fails and reports it.
            log.debug("the cluster's resources are not known: %s", error)
        else:
            if message := watch.observe(clock(), progress.n_chunks_done, total, free):
                progress.note(message)
        if wait(_POLL_EVERY_S):
            return


def _resources(amounts: dict[str, float]) -> Resources:
    return Resources(amounts.get("GPU", 0), amounts.get("CPU", 0))
