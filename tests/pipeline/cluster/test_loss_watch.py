"""A Ray that is gone is noticed, and one that is only busy is not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from pipeline.cluster import loss_watch
from pipeline.cluster.loss_watch import LossWatch, RayHead, RayLoss, RayPart, RayProcess, State
from pipeline.cluster.ray_processes import Process, find_process

A, G, S = State.ALIVE, State.GONE, State.SILENT


class Part:
    """A part of Ray whose states are given, one for each look; the last one stays."""

    def __init__(self, name: str, *states: State) -> None:
        self.name, self._states = name, list(states)

    def look(self) -> State:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]


def _lost_after(parts: Sequence[RayPart], n_looks: int = 60) -> tuple[int, str] | None:
    """Looks until the loss, one every 2 s with a patience of 30 s, and what is lost."""
    now = [0.0]
    watch = LossWatch(parts, 30, 0.0)
    for number in range(1, n_looks + 1):
        now[0] += 2
        if lost := watch.look(lambda: now[0]):
            return number, lost
    return None


@pytest.mark.parametrize(
    ("states", "lost"),
    [
        ([A], None),
        ([A, G, A], None),
        ([A, G, A, G, A], None),
        ([A, G], (3, "it is gone")),
        ([S] * 15 + [A], None),
        ([A, *[S] * 14, A, *[S] * 14, A], None),
        ([S], (16, "it has not answered for 32 s")),
        ([A, S], (17, "it has not answered for 32 s")),
        ([*[S] * 10, G], (12, "it is gone")),
    ],
)
def test_when_a_part_is_lost(states: list[State], lost: tuple[int, str] | None) -> None:
    assert _lost_after([Part("another", A), Part("it", *states)]) == lost


def test_process_that_is_stopped_is_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    process = find_process(child.pid)
    assert process is not None
    part = RayProcess("a process", process)
    os.kill(child.pid, signal.SIGSTOP)
    assert part.look() is State.ALIVE
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert part.look() is State.GONE  # though nobody has waited for it
    child.wait()
    assert part.look() is State.GONE


def test_head_that_is_busy_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts nothing
        head = RayHead(f"127.0.0.1:{server.getsockname()[1]}")
        assert head.look() is State.ALIVE
    assert head.look() is State.SILENT


@pytest.fixture
def lost_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray whose control process is gone, and a watch that does not wait."""
    gone = RayProcess("Ray's control process", Process(1 << 30, "1"))
    monkeypatch.setattr(loss_watch, "parts_of_ray", lambda: [gone])
    monkeypatch.setattr(loss_watch, "_POLL_S", 0.01)


@pytest.mark.usefixtures("lost_ray")
def test_main_thread_is_interrupted_and_ends_the_run() -> None:
    loss, ended_elsewhere = RayLoss(), list[bool]()

    def work() -> None:
        with loss.guarding(), loss.watching(lambda: ended_elsewhere.append(True)):
            threading.Event().wait()

    # A shell's background jobs ignore this signal; a run handles it (`stopping_on_signals`).
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        loss.ended(4)
        signal.signal(signal.SIGINT, before)
    assert loss.reason == "Ray's control process is gone; the same command continues the run"
    assert ended_elsewhere == []


@pytest.mark.usefixtures("lost_ray")
def test_run_that_an_error_of_ray_reached_first_looks_at_once() -> None:
    loss = RayLoss()
    assert not loss.found()  # no Ray yet
    loss._parts = loss_watch.parts_of_ray()
    assert loss.found()
    assert "control process is gone" in loss.reason


@pytest.mark.usefixtures("lost_ray")
@pytest.mark.parametrize("hangs", ["before its verdict", "after its verdict"])
def test_process_whose_main_thread_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    exited, done = list[int](), threading.Event()
    ended_elsewhere: list[bool] = []

    def exit_process(code: int) -> None:
        exited.append(code)
        done.set()

    monkeypatch.setattr(loss_watch, "_END_S", 0.05)
    monkeypatch.setattr(loss_watch.os, "_exit", exit_process)
    loss = RayLoss()

    def interrupt() -> None:
        if hangs == "after its verdict":
            loss.ended(4)

    monkeypatch.setattr(loss_watch, "_interrupt_main", interrupt)
    with loss.guarding(), loss.watching(lambda: ended_elsewhere.append(True)):
        assert done.wait(60)
    assert exited == [4]
    assert bool(ended_elsewhere) == (hangs == "before its verdict")


@pytest.mark.usefixtures("lost_ray")
def test_ray_that_is_shut_down_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_watch, "_POLL_S", 5.0)
    loss, ended = RayLoss(), list[bool]()
    with loss.guarding():
        with loss.watching(lambda: ended.append(True)):
            pass
        for thread in threading.enumerate():
            if thread.name == "loss-watch":
                thread.join()
        assert not loss.reason
    assert not ended
