"""Find repeated ids of a corpus, in memory that does not grow with the corpus.

Each id is stored as 24 bytes: 128 bits of its hash, and its place. The entries are held in memory
up to a budget. Beyond it they are written to files in a temporary folder, one per value of the
first bits of the hash, so that all repeats of an id are in one file. Each file is sorted alone.
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
# high, low: the two halves of the hash. place: ascending in the order of the input.
ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("place", "<u8")])

BUDGET_BYTES = 64 * 1024**2
_BUCKET_BITS = 8
_HASH_BITS = 64  # of the half that selects a bucket
_ARRAY_BYTES = 200  # memory of an array besides its entries; small shards add many arrays


class RepeatedIds:
    """Collects ids, in any order and from any thread, and then finds the repeated ones.

    budget_bytes: of entries in memory; sorting them needs about three times as much. Beyond the
    budget, 24 bytes per id are in a temporary folder (in TMPDIR) until the `with` block ends.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._id_files = _IdFiles(budget_bytes, 0)
        self._lock = threading.Lock()

    def __enter__(self) -> RepeatedIds:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._id_files.close()

    @property
    def spilled_bytes(self) -> int:
        """Size of the files in the temporary folder."""
        return self._id_files.spilled_bytes

    def add(self, digests: NDArray[np.uint64], places: Places) -> None:
        """Add ids. digests: [n, 2], the halves of their hashes; places: [n], all different."""
        entries = np.empty(len(places), ENTRY)
        entries["high"], entries["low"] = digests[:, 0], digests[:, 1]
        entries["place"] = places
        with self._lock:
            self._id_files.add(entries)

    def repeats(self) -> tuple[Places, Places]:
        """Places of ids that have an earlier place too, ascending; and the first place of each."""
        found = [repeats_in(bucket) for bucket in _buckets(self._id_files, self._budget_bytes)]
        places, firsts = (np.concatenate(half) for half in zip(*found, strict=True))
        order = np.argsort(places)
        return places[order], firsts[order]


class _IdFiles:
    """Entries in memory, or beyond the budget in one file per bucket.

    shift: number of leading bits of the hash that all entries have in common.
    """

    def __init__(self, budget_bytes: int, shift: int) -> None:
        self.shift = shift
        self._budget_bytes = budget_bytes
        self._pending: list[NDArray[np.void]] = []
        self._pending_bytes = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.spilled_bytes = 0

    def add(self, entries: NDArray[np.void]) -> None:
        self._pending.append(entries)
        self._pending_bytes += entries.nbytes + _ARRAY_BYTES
        if self._pending_bytes > self._budget_bytes:
            self._spill()

    def in_memory(self) -> NDArray[np.void] | None:
        """All entries; None if some are in files."""
        if self._folder is not None:
            return None
        return np.concatenate([np.empty(0, ENTRY), *self._pending])

    def files(self) -> Iterator[Path]:
        """The files of all buckets that have entries."""
        self._spill()
        assert self._folder is not None
        yield from sorted(Path(self._folder.name).iterdir())

    def close(self) -> None:
        self._pending = []
        if self._folder is not None:
            self._folder.cleanup()

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="omnitrace-ids-")
        entries = np.concatenate([np.empty(0, ENTRY), *self._pending])
        self._pending, self._pending_bytes = [], 0
        self.spilled_bytes += entries.nbytes
        kept = np.uint64(_HASH_BITS - self.shift - _BUCKET_BITS)
        buckets = (entries["high"] >> kept).astype(np.uint8)
        entries = entries[np.argsort(buckets, kind="stable")]
        ends = np.cumsum(np.bincount(buckets, minlength=1 << _BUCKET_BITS))
        for bucket, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                with (Path(self._folder.name) / f"{bucket:02x}").open("ab") as file:
                    entries[start:end].tofile(file)


def _buckets(id_files: _IdFiles, budget_bytes: int) -> Iterator[NDArray[np.void]]:
    """All entries, in arrays within the budget; those of one hash are in the same array.

    An array is above the budget only if an id repeats more often than the budget has entries.
    """
    entries = id_files.in_memory()
    if entries is not None:
        yield entries
        return
    for file in id_files.files():
        n_bytes = file.stat().st_size
        if n_bytes <= budget_bytes or id_files.shift + 2 * _BUCKET_BITS > _HASH_BITS:
            yield np.fromfile(file, ENTRY)
        else:
            yield from _split(file, id_files.shift + _BUCKET_BITS, budget_bytes)
        file.unlink()


def _split(file: Path, shift: int, budget_bytes: int) -> Iterator[NDArray[np.void]]:
    """The entries of a file that is larger than the budget."""
    smaller = _IdFiles(budget_bytes, shift)
    try:
        step = max(budget_bytes // ENTRY.itemsize, 1)
        for start in range(0, file.stat().st_size // ENTRY.itemsize, step):
            offset = start * ENTRY.itemsize
            smaller.add(np.fromfile(file, ENTRY, count=step, offset=offset))
        yield from _buckets(smaller, budget_bytes)
    finally:
        smaller.close()


def repeats_in(entries: NDArray[np.void]) -> tuple[Places, Places]:
    """Places of all entries but the first of each hash; and for each, that first place."""
    order = np.lexsort((entries["place"], entries["low"], entries["high"]))
    ranked = entries[order]
    repeated = np.zeros(len(ranked), dtype=bool)
    for half in ("high", "low"):
        same = ranked[half][1:] == ranked[half][:-1]
        repeated[1:] = same if half == "high" else repeated[1:] & same
    first_of = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(ranked))))
    return ranked["place"][repeated], ranked["place"][first_of[repeated]]
