"""Find and end the processes of the local Ray that this process started (Linux: from /proc).

Ray names a session after the process that starts it, and its processes name their session in their
command lines. So nothing of another user's Ray, or of another driver's, is ever taken for ours.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_END_TIMEOUT_S = 5.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """A process; two processes with one id differ in when they started, in ticks since boot."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether it runs; one that waits to be reaped does not."""
        return find_process(self.pid) == self


def find_process(pid: int) -> Process | None:
    """The process of this id, if it runs."""
    fields = _stat(pid)
    return Process(pid, fields[19]) if fields and fields[0] not in ("Z", "X") else None


def processes_with(text: str) -> list[tuple[Process, str]]:
    """Processes whose command line matches a regular expression, with their command lines."""
    found = []
    for folder in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
            command = words.decode(errors="replace")
            if re.search(text, command) and (process := find_process(int(folder.name))):
                found.append((process, command))
    return found


def ray_processes_of(pid: int) -> list[Process]:
    """Processes of the sessions that this process started, and their descendants."""
    session = rf"session_[\d_-]+_{pid}\b"
    named = {process.pid for process, _ in processes_with(session)} - {pid, os.getpid()}
    return [process for pid in _with_descendants(named) if (process := find_process(pid))]


def end_processes(processes: Iterable[Process]) -> list[Process]:
    """Kill processes, and wait until they are gone; returns those that are not."""
    left = [process for process in processes if process.alive]
    for process in left:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_TIMEOUT_S
    while (left := [process for process in left if process.alive]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return left


def _with_descendants(pids: set[int]) -> set[int]:
    parents: dict[int, int] = {}
    for folder in _PROC.glob("[0-9]*"):
        if fields := _stat(int(folder.name)):
            parents[int(folder.name)] = int(fields[1])
    found = set(pids)
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if there is no such process."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
