"""Processor time of a tree of processes, Ray's included, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_Process = tuple[int, int]  # id, time of birth


class TreeTime:
    """Seconds used by this process and all below it; of those that have ended, as last seen."""

    def __init__(self) -> None:
        self._ticks: dict[_Process, int] = {}
        self._at_begin: dict[_Process, int] = {}
        self._names: dict[_Process, str] = {}

    def __call__(self) -> float:
        """Seconds so far."""
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
        """From here on `by_name` counts."""
        self._at_begin = dict(self._ticks)

    def by_name(self) -> dict[str, float]:
        """Seconds since `begin` by what processes call themselves, most first."""
        used: dict[str, float] = {}
        for process, ticks in self._ticks.items():
            name, more = self._names[process], ticks - self._at_begin.get(process, 0)
            if more:
                used[name] = used.get(name, 0.0) + more * _TICK_S
        return dict(sorted(used.items(), key=lambda item: -item[1]))


def _name(pid: int) -> str:
    """A Ray worker's title, or its program."""
    try:
        told = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    if told.startswith("ray::"):
        return told.strip("\0 ")
    words = [Path(word).name for word in told.split("\0") if word and not word.startswith("-")]
    return " ".join(words[:2])[:60]


def _processes_now() -> Iterator[tuple[int, int, int, int]]:
    """Id, parent, time of birth and ticks of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                told = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), int(told[1]), int(told[19]), int(told[11]) + int(told[12])
