"""Watch a run from outside: its actors, and the memory of actors and decoders."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from types import TracebackType

import psutil

# Ray names its workers after what they run; `__init__` while an actor loads.
_ACTOR = re.compile(r"ray::MapWorker\(MapBatches\((\w+)\)\)(?!\.__init__)")
_DECODER = "omnitrace_core.media.isolation.child_main"
_EVERY_S = 0.02


@dataclass(slots=True)
class Memory:
    """Resident memory of one process in MiB: when first seen at work, and at most."""

    first_mib: float
    peak_mib: float


@dataclass(slots=True)
class Watch:
    """Watches all descendants of a process until the end of the block.

    actors: per stage, by process id, since a lost actor is restarted as another process.
    decoders: the processes that decode for actors, by process id.
    """

    pid: int
    actors: dict[str, dict[int, Memory]] = field(default_factory=lambda: defaultdict(dict))
    decoders: dict[int, Memory] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            while not self._ended.wait(_EVERY_S):
                for process in root.children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        self._measure(process)

    def _measure(self, process: psutil.Process) -> None:
        command = " ".join(process.cmdline())
        actor = _ACTOR.match(command)
        if actor:
            known = self.actors[actor.group(1)]
        elif _DECODER in command:
            known = self.decoders
        else:
            return
        if process.ppid() in known:
            # A fork of an actor that has not started its own program yet.
            return
        used_mib = process.memory_info().rss / (1 << 20)
        seen = known.setdefault(process.pid, Memory(used_mib, used_mib))
        seen.peak_mib = max(seen.peak_mib, used_mib)
