"""Leftovers of our own Ray are found and ended; processes of another session are not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline.cluster.ray_processes import (
    end_processes,
    find_process,
    processes_with,
    ray_processes_of,
)

# No process has this id; other tests may have a real Ray of this process.
STARTER = os.getpid() + 10_000_000
# Starts another process, which does not name the session, and says its id.
PARENT = (
    "import subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "print(child.pid, flush=True); time.sleep(600)"
)


def _start(session: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", PARENT, f"--session-dir=/tmp/ray/{session}"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.fixture
def sessions() -> Iterator[dict[str, tuple[subprocess.Popen[str], int]]]:
    date = "2026-01-31_10-00-00_123456"
    started = {
        "ours": _start(f"session_{date}_{STARTER}"),
        "longer": _start(f"session_{date}_{STARTER}9"),
        "other": _start(f"session_{date}_1"),
    }
    yield started
    for parent, child in started.values():
        parent.kill()
        if (process := find_process(child)) is not None:
            end_processes([process])
        parent.communicate()


def test_own_processes_are_found_and_ended(
    sessions: dict[str, tuple[subprocess.Popen[str], int]],
) -> None:
    parent, child = sessions["ours"]
    found = ray_processes_of(STARTER)
    assert {process.pid for process in found} == {parent.pid, child}
    assert end_processes(found) == []
    assert not any(process.alive for process in found)
    assert ray_processes_of(STARTER) == []
    for name in ("longer", "other"):
        assert find_process(sessions[name][0].pid) is not None
        assert find_process(sessions[name][1]) is not None


def test_a_process_is_not_one_that_has_its_id_now() -> None:
    us = find_process(os.getpid())
    assert us is not None
    assert us.alive
    assert not type(us)(us.pid, "1").alive
    assert find_process(1 << 30) is None
    (found,) = [process for process, _ in processes_with("python") if process.pid == os.getpid()]
    assert found == us
