"""What a driver costs: requests to the storage by kind, memory over time, objects alive."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from pipeline.storage import folder as io
from pipeline.storage.store import Store

# What each call is on an object store. A call within a call (`create` writes, say) is one request.
_KINDS = {
    "listing": "list",
    "info": "head",
    "version": "head",
    "open": "get",
    "read": "get",
    "read_tagged": "get",
    "download": "get",
    "writing": "put",
    "create": "put",
    "swap": "put",
    "delete": "delete",
    "delete_folder": "delete",
}
_PER_LISTING = _PER_DELETE = 1000  # names in one request, on S3


@dataclass(slots=True)
class Course:
    """One stage: its wall time, requests by kind, processor time and memory of this process.

    rss_mib, blocks: at points of the work, each with how much of it was done: resident memory, and
    blocks of Python's allocator in use (objects alive). peak_mib: of the process so far.
    """

    stage: str
    wall_s: float = 0.0
    cpu_s: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    rss_mib: list[tuple[int, float]] = field(default_factory=list)
    blocks: list[tuple[int, int]] = field(default_factory=list)
    peak_mib: float = 0.0

    def look(self, done: int) -> None:
        """Note memory; done: chunks so far."""
        self.rss_mib.append((done, rss_mib()))
        self.blocks.append((done, sys.getallocatedblocks()))
        self.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time of a block."""
        begun, begun_cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall_s += time.perf_counter() - begun
            self.cpu_s += time.process_time() - begun_cpu

    @property
    def grown_mib(self) -> float:
        """Resident memory at the end beyond that of the start."""
        return self.rss_mib[-1][1] - self.rss_mib[0][1]

    def told(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)


class Requests:
    """Counts of requests, by the label that is set now."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.label = "driver"
        self._guard = threading.Lock()

    def add(self, kind: str, n: int = 1) -> None:
        """Count."""
        with self._guard:
            self.counts.setdefault(self.label, Counter())[kind] += n

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Count under another label; threads that are started inside count there, too."""
        before, self.label = self.label, label
        try:
            yield
        finally:
            self.label = before


@contextmanager
def counting_requests() -> Iterator[Requests]:
    """Counts what every `Folder` that is opened inside asks of its store.

    Listings and deletions count as S3 would need them: one request per 1,000 names.
    """
    requests = Requests()
    kept = io.open_store

    def counted(root: str) -> tuple[Store, str]:
        store, path = kept(root)
        for name, kind in _KINDS.items():
            setattr(store, name, _counted(getattr(store, name), kind, requests))
        return store, path

    io.open_store = counted
    try:
        yield requests
    finally:
        io.open_store = kept


_inside = threading.local()


def _counted(call: Callable[..., Any], kind: str, requests: Requests) -> Callable[..., Any]:
    @wraps(call)
    def counted(*args: Any, **more: Any) -> Any:
        if getattr(_inside, "call", False):
            return call(*args, **more)
        _inside.call = True
        try:
            answer = call(*args, **more)
        finally:
            _inside.call = False
        n = 1
        if kind == "list":
            n = max(-(-len(answer) // _PER_LISTING), 1)
        elif kind == "delete" and args and isinstance(args[0], list):
            n = -(-len(args[0]) // _PER_DELETE)
        requests.add(kind, n)
        return answer

    return counted


def rss_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@contextmanager
def stage(name: str, courses: list[Course]) -> Iterator[Course]:
    """Measure a block as one stage."""
    course = Course(name)
    courses.append(course)
    course.look(0)
    with course.timed():
        yield course
