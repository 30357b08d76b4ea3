"""Notice that Ray is gone, before Ray ends this process without a word.

If the control process (GCS) of a cluster does not answer for a minute, Ray's C++ code ends each
process that is connected to it. Python code learns nothing of it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from pipeline.cluster.ray_processes import Process, processes_with

# Ray's C++ code waits this long for the control process, then it ends the process.
RECONNECT_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"
_POLL_S = 2.0
# How long the main thread may take to write the verdict, and then to disconnect.
_END_S = 15.0
_EXIT_CODE = 4
_CONNECT_S = 5.0
_N_GONE = 2  # looks in a row that find a process gone
_GONE = "is gone"
log = logging.getLogger(__name__)


class State(Enum):
    """What a look at a part of Ray found."""

    ALIVE = "alive"
    GONE = "gone"  # it has ended, and does not come back
    SILENT = "silent"  # it does not answer, and may do so again


class RayPart(Protocol):
    """A part of Ray that a driver cannot work without. name: in messages."""

    @property
    def name(self) -> str: ...
    def look(self) -> State: ...


@dataclass(frozen=True, slots=True)
class RayProcess:
    """A process of Ray on this machine."""

    name: str
    process: Process

    def look(self) -> State:
        """A busy process is alive, however long it does not answer."""
        return State.ALIVE if self.process.alive else State.GONE


@dataclass(frozen=True, slots=True)
class RayHead:
    """The head of a cluster; it may be restarted, so it is never gone."""

    address: str

    @property
    def name(self) -> str:
        return f"the head of the Ray cluster at {self.address}"

    def look(self) -> State:
        """The kernel accepts a connection even for a process that is busy."""
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        except OSError:
            return State.SILENT
        return State.ALIVE


class LossWatch:
    """Decides from repeated looks at Ray's parts whether Ray is gone.

    patience_s: how long a part may be silent. now: seconds, by any clock.
    """

    def __init__(self, parts: Sequence[RayPart], patience_s: float, now: float) -> None:
        self._parts, self._patience_s = parts, patience_s
        self._last_alive = dict.fromkeys(range(len(parts)), now)
        self._n_gone = dict.fromkeys(range(len(parts)), 0)

    def look(self, clock: Callable[[], float]) -> str:
        """Look at all parts; returns what is lost, empty if nothing is. clock: returns seconds."""
        for index, part in enumerate(self._parts):
            state = part.look()
            now = clock()
            self._n_gone[index] = self._n_gone[index] + 1 if state is State.GONE else 0
            if state is State.ALIVE:
                self._last_alive[index] = now
            if self._n_gone[index] >= _N_GONE:
                return f"{part.name} {_GONE}"
            silent_s = now - self._last_alive[index]
            if state is State.SILENT and silent_s > self._patience_s:
                return f"{part.name} has not answered for {silent_s:.0f} s"
        return ""


class RayLoss:
    """What a driver knows of the loss of its Ray, and how the driver ends then.

    A thread looks at Ray. When Ray is gone, it interrupts the main thread, which writes the verdict
    and releases the lease. A main thread that hangs in Ray's code does not: then this thread does
    it, and ends the process.

    reason: empty while Ray works.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._exit_code = _EXIT_CODE
        self._parts: Sequence[RayPart] = ()
        self._lock = threading.Lock()
        # Set when the verdict is written, when the watch is over, and when Ray is disconnected.
        self._ended, self._stopped, self._closed = (threading.Event() for _ in range(3))

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Around everything that calls Ray; a loss in `watching` ends a process that hangs here."""
        try:
            yield
        finally:
            self._closed.set()

    @contextmanager
    def watching(self, end_run: Callable[[], None]) -> Iterator[None]:
        """Watch the Ray that is connected; not while it is shut down.

        end_run: writes the verdict and releases the lease; may be called in another thread.
        """
        in_main = threading.current_thread() is threading.main_thread()
        self._parts = parts_of_ray()
        threading.Thread(
            target=self._watch, args=(end_run, in_main), name="loss-watch", daemon=True
        ).start()
        try:
            yield
        finally:
            self._stopped.set()

    def ended(self, exit_code: int | None) -> None:
        """Note that the verdict is written: the process need not be interrupted any more."""
        self._exit_code = _EXIT_CODE if exit_code is None else exit_code
        self._ended.set()

    def found(self) -> bool:
        """Whether Ray is gone; looks at once, for a caller that an error of Ray has reached."""
        for part in self._parts:
            if all(_looks_lost(part) for _ in range(_N_GONE)):
                self._record(f"{part.name} {_GONE}")
                break
        return bool(self.reason)

    def _watch(self, end_run: Callable[[], None], in_main: bool) -> None:
        watch = LossWatch(self._parts, reconnect_s() / 2, time.monotonic())
        while not (lost := watch.look(time.monotonic)):
            if self._stopped.wait(_POLL_S):
                return
        if self._stopped.is_set():
            return
        if self._record(lost) and in_main and not self._ended.is_set():
            _interrupt_main()
        if not self._ended.wait(_END_S):
            end_run()
        if not self._closed.wait(_END_S):
            os._exit(self._exit_code)

    def _record(self, lost: str) -> bool:
        """Keep and log the reason; returns whether it was new."""
        with self._lock:
            if self.reason:
                return False
            self.reason = f"{lost}; the same command continues the run"
        log.error("%s", self.reason)
        return True


def _looks_lost(part: RayPart) -> bool:
    time.sleep(_POLL_S / 4)
    return part.look() is not State.ALIVE


def _interrupt_main() -> None:
    """Interrupt the main thread as Ctrl-C does, unless that would end the process at once."""
    main = threading.main_thread().ident
    if main is not None and callable(signal.getsignal(signal.SIGINT)):
        signal.pthread_kill(main, signal.SIGINT)


def reconnect_s() -> float:
    """How long Ray's C++ code waits for the control process."""
    try:
        return float(os.environ.get(RECONNECT_VARIABLE, "60"))
    except ValueError:
        return 60.0


def parts_of_ray() -> list[RayPart]:
    """The parts of the Ray that this process is connected to."""
    import ray

    context = ray.get_runtime_context()
    raylets = processes_with(rf"/raylet .*{context.get_node_id()}")
    local = processes_with(rf"/gcs_server .*session_[\d_-]+_{os.getpid()}\b")
    parts: list[RayPart] = [
        RayProcess(f"Ray's process for this machine (raylet, {process.pid})", process)
        for process, _ in raylets
    ]
    parts += [
        RayProcess(f"Ray's control process (gcs_server, {process.pid})", process)
        for process, _ in local
    ]
    return parts if local else [*parts, RayHead(context.gcs_address)]
