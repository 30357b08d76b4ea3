"""Which ids of a corpus came before, in memory that does not grow with the corpus.

Each id is kept as 24 bytes: 128 bits of its hash, and its place. They wait in memory up to a
budget; then they go, by the first bits of the hash, to files in a temporary folder, so that all
repeats of an id lie in one file, and each file is sorted alone.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.uint64]
# high, low: the two halves of the hash. place: rises in the order of the input.
ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("place", "<u8")])

BUDGET_BYTES = 64 * 1024**2
_BUCKET_BITS = 8
_HASH_BITS = 64  # of those that choose a bucket
_ARRAY_BYTES = 200  # what an array takes beside its entries; small shards make many


class RepeatedIds:
    """Takes entries in any order and from any thread, then tells the repeats.

    budget_bytes: of entries in memory; about three times as much is used while they are sorted.
    Beyond it, 24 bytes per id lie in a temporary folder (in TMPDIR) until the block ends.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._spool = _Spool(budget_bytes, 0)
        self._guard = threading.Lock()

    def __enter__(self) -> RepeatedIds:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._spool.close()

    @property
    def spilled_bytes(self) -> int:
        """What lies in the temporary folder."""
        return self._spool.spilled_bytes

    def add(self, digests: NDArray[np.uint64], places: Places) -> None:
        """Take some ids. digests: [n, 2], their hashes; places: [n], each another one."""
        entries = np.empty(len(places), ENTRY)
        entries["high"], entries["low"] = digests[:, 0], digests[:, 1]
        entries["place"] = places
        with self._guard:
            self._spool.add(entries)

    def repeats(self) -> tuple[Places, Places]:
        """Places of ids that stand at an earlier place too, ascending, and the first of each."""
        found = [_repeats_in(bucket) for bucket in _buckets(self._spool, self._budget_bytes)]
        places, firsts = (np.concatenate(half) for half in zip(*found, strict=True))
        order = np.argsort(places)
        return places[order], firsts[order]


class _Spool:
    """Entries in memory, or from a budget on in one file per bucket.

    shift: how many of the hash's first bits are the same in all of them.
    """

    def __init__(self, budget_bytes: int, shift: int) -> None:
        self.shift = shift
        self._budget_bytes = budget_bytes
        self._waiting: list[NDArray[np.void]] = []
        self._waiting_bytes = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.spilled_bytes = 0

    def add(self, entries: NDArray[np.void]) -> None:
        self._waiting.append(entries)
        self._waiting_bytes += entries.nbytes + _ARRAY_BYTES
        if self._waiting_bytes > self._budget_bytes:
            self._spill()

    def in_memory(self) -> NDArray[np.void] | None:
        """All of them, if nothing went to files."""
        if self._folder is not None:
            return None
        return np.concatenate([np.empty(0, ENTRY), *self._waiting])

    def files(self) -> Iterator[Path]:
        """The files of all buckets that have entries."""
        self._spill()
        assert self._folder is not None
        yield from sorted(Path(self._folder.name).iterdir())

    def close(self) -> None:
        self._waiting = []
        if self._folder is not None:
            self._folder.cleanup()

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="omnitrace-ids-")
        entries = np.concatenate([np.empty(0, ENTRY), *self._waiting])
        self._waiting, self._waiting_bytes = [], 0
        self.spilled_bytes += entries.nbytes
        kept = np.uint64(_HASH_BITS - self.shift - _BUCKET_BITS)
        buckets = (entries["high"] >> kept).astype(np.uint8)
        entries = entries[np.argsort(buckets, kind="stable")]
        ends = np.cumsum(np.bincount(buckets, minlength=1 << _BUCKET_BITS))
        for bucket, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                with (Path(self._folder.name) / f"{bucket:02x}").open("ab") as file:
                    entries[start:end].tofile(file)


def _buckets(spool: _Spool, budget_bytes: int) -> Iterator[NDArray[np.void]]:
    """All entries, those of one hash together, in arrays within the budget.

    An id that repeats more often than the budget holds is the exception: nothing can part it.
    """
    entries = spool.in_memory()
    if entries is not None:
        yield entries
        return
    for file in spool.files():
        n_bytes = file.stat().st_size
        if n_bytes <= budget_bytes or spool.shift + 2 * _BUCKET_BITS > _HASH_BITS:
            yield np.fromfile(file, ENTRY)
        else:
            yield from _split(file, spool.shift + _BUCKET_BITS, budget_bytes)
        file.unlink()


def _split(file: Path, shift: int, budget_bytes: int) -> Iterator[NDArray[np.void]]:
    """The entries of a file that is larger than the budget."""
    smaller = _Spool(budget_bytes, shift)
    try:
        step = max(budget_bytes // ENTRY.itemsize, 1)
        for start in range(0, file.stat().st_size // ENTRY.itemsize, step):
            offset = start * ENTRY.itemsize
            smaller.add(np.fromfile(file, ENTRY, count=step, offset=offset))
        yield from _buckets(smaller, budget_bytes)
    finally:
        smaller.close()


def _repeats_in(entries: NDArray[np.void]) -> tuple[Places, Places]:
    """Places of all entries but the first of each hash, and the place of that first one."""
    order = np.lexsort((entries["place"], entries["low"], entries["high"]))
    ranked = entries[order]
    repeated = np.zeros(len(ranked), dtype=bool)
    for half in ("high", "low"):
        same = ranked[half][1:] == ranked[half][:-1]
        repeated[1:] = same if half == "high" else repeated[1:] & same
    first_of = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(ranked))))
    return ranked["place"][repeated], ranked["place"][first_of[repeated]]
