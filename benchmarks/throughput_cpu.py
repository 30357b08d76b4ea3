"""Measure the processor time of a tree of processes, including Ray's, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_Process = tuple[int, int]  # id, start time


class TreeTime:
    """Seconds used by this process and its descendants; ended ones count as last seen."""

    def __init__(self) -> None:
        self._ticks: dict[_Process, int] = {}
        self._at_begin: dict[_Process, int] = {}
        self._names: dict[_Process, str] = {}

    def __call__(self) -> float:
        """Seconds used so far."""
        now = {pid: (parent, born, ticks) for pid, parent, born, ticks in _processes_now()}
        children: dict[int, list[int]] = {}
        for pid, (parent, _, _) in now.items():
            children.setdefault(parent, []).append(pid)
        waiting = [os.getpid()]
        while waiting:
            pid = waiting.pop()
            waiting += children.get(pid, [])
            if pid in now:
                _, born, self._ticks[pid, now[pid][1]] = now[pid]
                self._names[pid, born] = _name(pid) or self._names.get((pid, born), "")
        return sum(self._ticks.values()) * _TICK_S

    def begin(self) -> None:
        """Start the period of `by_name`."""
        self._at_begin = dict(self._ticks)

    def by_name(self) -> dict[str, float]:
        """Seconds since `begin` by name of the processes, largest first."""
        used: dict[str, float] = {}
        for process, ticks in self._ticks.items():
            name, more = self._names[process], ticks - self._at_begin.get(process, 0)
            if more:
                used[name] = used.get(name, 0.0) + more * _TICK_S
        return dict(sorted(used.items(), key=lambda item: -item[1]))


def _name(pid: int) -> str:
    """The title of a Ray worker, or the program and first argument of another process."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    if command.startswith("ray::"):
        return command.strip("\0 ")
    words = [Path(word).name for word in command.split("\0") if word and not word.startswith("-")]
    return " ".join(words[:2])[:60]


def _processes_now() -> Iterator[tuple[int, int, int, int]]:
    """Id, parent, start time and ticks of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                yield int(entry.name), int(fields[1]), int(fields[19]), ticks
