"""Measure a driver: requests to the storage by kind, memory over time, objects alive."""

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

from pipeline.storage import folder as folder_module
from pipeline.storage.store import Store

# The kind of request that each call needs on an object store. Calls inside another call (`create`
# calls `writing`, for example) do not count again.
_KINDS = {
    "listing": "list",
    "sizes": "list",
    "files_below": "list",
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
}
_PER_LISTING = _PER_DELETE = 1000  # names in one request, on S3


@dataclass(slots=True)
class StageCost:
    """The cost of one stage: wall time, processor time, requests by kind, memory of this process.

    rss_mib, blocks: pairs of (chunks done so far, value), for resident memory and for blocks of
    Python's allocator in use (objects alive). peak_mib: peak of the process so far.
    """

    stage: str
    wall_s: float = 0.0
    cpu_s: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    rss_mib: list[tuple[int, float]] = field(default_factory=list)
    blocks: list[tuple[int, int]] = field(default_factory=list)
    peak_mib: float = 0.0

    def record_memory(self, done: int) -> None:
        """Record the memory now. done: chunks done so far."""
        self.rss_mib.append((done, rss_mib()))
        self.blocks.append((done, sys.getallocatedblocks()))
        self.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time of the `with` block."""
        begun, begun_cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall_s += time.perf_counter() - begun
            self.cpu_s += time.process_time() - begun_cpu

    def as_json(self) -> dict[str, Any]:
        """The fields as plain values for JSON."""
        return asdict(self)


class Requests:
    """Counts of requests, by label."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.label = "driver"
        self._guard = threading.Lock()

    def add(self, kind: str, n: int = 1) -> None:
        """Count `n` requests under the present label."""
        with self._guard:
            self.counts.setdefault(self.label, Counter())[kind] += n

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Set the label inside the `with` block, for all threads."""
        before, self.label = self.label, label
        try:
            yield
        finally:
            self.label = before


@contextmanager
def counting_requests() -> Iterator[Requests]:
    """Count the requests of every `Folder` that is opened inside the `with` block.

    Listings and deletions count as on S3: one request per 1,000 names.
    """
    requests = Requests()
    original = folder_module.open_store

    def counted(root: str) -> tuple[Store, str]:
        store, path = original(root)
        for name, kind in _KINDS.items():
            setattr(store, name, _counted(getattr(store, name), kind, requests))
        return store, path

    folder_module.open_store = counted
    try:
        yield requests
    finally:
        folder_module.open_store = original


_inside = threading.local()


def _counted(call: Callable[..., Any], kind: str, requests: Requests) -> Callable[..., Any]:
    @wraps(call)
    def counted(*args: Any, **more: Any) -> Any:
        if getattr(_inside, "call", False):
            return call(*args, **more)
        _inside.call = True
        try:
            result = call(*args, **more)
        finally:
            _inside.call = False
        n = 1
        if kind == "list":
            n = max(-(-len(result) // _PER_LISTING), 1)
        elif kind == "delete" and args and isinstance(args[0], list):
            n = -(-len(args[0]) // _PER_DELETE)
        requests.add(kind, n)
        return result

    return counted


def rss_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@contextmanager
def stage(name: str, costs: list[StageCost]) -> Iterator[StageCost]:
    """Measure the `with` block as one stage."""
    cost = StageCost(name)
    costs.append(cost)
    cost.record_memory(0)
    with cost.timed():
        yield cost
