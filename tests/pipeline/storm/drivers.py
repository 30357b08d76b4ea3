"""The driver processes of a round: started by fork, stopped, killed and waited for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.pipeline.storm.driver_main import DriverPlan, drive

# Forks from a process that has imported everything: a driver starts in some milliseconds.
_PROCESSES = multiprocessing.get_context("forkserver")
_WARM = "tests.pipeline.storm.warm"
_PROCESSES.set_forkserver_preload([_WARM])


def preload(module: str) -> None:
    """Import one more module before drivers are forked; called before the first one starts."""
    _PROCESSES.set_forkserver_preload([_WARM, module])


@dataclass(eq=False)
class Driver:
    """A driver process, which leads a process group.

    started, ended: by `time.monotonic`. alone: no other driver was alive during its life.
    resume_at: when a stop ends; None if it is not stopped.
    """

    number: int
    plan: DriverPlan
    process: ForkServerProcess
    started: float
    alone: bool
    resume_at: float | None = None
    ended: float | None = None

    def send(self, number: signal.Signals, *, group: bool = True) -> None:
        """Send a signal to the process, or to its group."""
        with suppress(ProcessLookupError):
            self._send(number, group)

    def _send(self, number: signal.Signals, group: bool) -> None:
        assert self.process.pid is not None
        if group:
            try:
                os.killpg(self.process.pid, number)
                return
            except ProcessLookupError:
                # It was forked a moment ago, and has no group yet.
                pass
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def has_group(self) -> bool:
        """Whether a process of its group is alive: a worker that outlives it, if it has ended."""
        assert self.process.pid is not None
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


class Drivers:
    """The drivers of a round. on_end: called with each driver that has ended."""

    def __init__(self, folder: Path, on_end: Callable[[Driver], None]) -> None:
        self._folder = folder
        self._on_end = on_end
        self._all: list[Driver] = []
        self.alive: list[Driver] = []

    def __len__(self) -> int:
        return len(self._all)

    def start(self, plan: DriverPlan) -> Driver:
        """Start a driver."""
        alone = not self.any_alive()
        for other in self.alive:
            other.alone = False
        number = len(self._all)
        process = _PROCESSES.Process(target=drive, args=(str(self._folder), number, plan))
        driver = Driver(number, plan, process, time.monotonic(), alone)
        process.start()
        self._all.append(driver)
        self.alive.append(driver)
        return driver

    def wait_until(self, end: float) -> None:
        """Until a time by `time.monotonic`: resume drivers whose stop ends, report ended ones."""
        while (now := time.monotonic()) < end:
            due = [driver.resume_at for driver in self.alive if driver.resume_at is not None]
            self._wait(min([end, *due]) - now)
            self._resume(time.monotonic())

    def wait_for_all(self, seconds: float) -> bool:
        """Resume all drivers and wait for their ends; whether all have ended, workers included."""
        end = time.monotonic() + seconds
        while self.alive and time.monotonic() < end:
            # More than once: a driver that stops itself may do so later.
            self._resume(float("inf"))
            for driver in self.alive:
                driver.send(signal.SIGCONT)
            self._wait(0.1)
        while self._orphans() and time.monotonic() < end:
            for driver in self._orphans():
                driver.send(signal.SIGCONT)
            time.sleep(0.01)
        return not self.any_alive()

    def kill_all(self) -> None:
        """Kill what is alive, and report no ends."""
        for driver in [*self.alive, *self._orphans()]:
            driver.send(signal.SIGKILL)
        for driver in self.alive:
            driver.process.join()
        self.alive = []

    def any_alive(self) -> bool:
        """Whether a driver, or the worker of one that has ended, is alive."""
        return bool(self.alive or self._orphans())

    def others(self, driver: Driver, since: float) -> bool:
        """Whether another driver, or the worker of one, was alive at some time from `since` on."""
        late = any(
            item.ended is None or item.ended >= since for item in self._all if item is not driver
        )
        return late or bool(self._orphans())

    def pause(self) -> list[Driver]:
        """Stop the drivers that are not stopped yet; returns them, to be resumed."""
        running = [driver for driver in self.alive if driver.resume_at is None]
        for driver in running:
            driver.send(signal.SIGSTOP)
        return running

    def _wait(self, seconds: float) -> None:
        ready = wait([driver.process.sentinel for driver in self.alive], max(seconds, 0.0))
        if not self.alive:
            time.sleep(max(seconds, 0.0))
        for driver in [item for item in self.alive if item.process.sentinel in ready]:
            driver.process.join()
            driver.ended = time.monotonic()
            self.alive.remove(driver)
            self._on_end(driver)

    def _resume(self, now: float) -> None:
        for driver in self.alive:
            if driver.resume_at is not None and driver.resume_at <= now:
                driver.resume_at = None
                driver.send(signal.SIGCONT)

    def _orphans(self) -> list[Driver]:
        return [item for item in self._all if item not in self.alive and item.has_group()]
