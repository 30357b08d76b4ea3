from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.planning import repeated_ids
from pipeline.planning.repeated_ids import ENTRY, RepeatedIds

Ids = NDArray[np.uint64]


def _reference(digests: Ids) -> tuple[list[int], list[int]]:
    """The repeats by a search over a dict. digests: [n, 2], in the order of their places."""
    seen: dict[tuple[int, int], int] = {}
    places, firsts = [], []
    for place, pair in enumerate(map(tuple, digests.tolist())):
        if pair in seen:
            places.append(place)
            firsts.append(seen[pair])
        seen.setdefault(pair, place)
    return places, firsts


def _found(digests: Ids, budget_bytes: int, pieces: int, seed: int) -> tuple[list[int], list[int]]:
    """The repeats by `RepeatedIds`, to which the ids are added in shuffled pieces."""
    places = np.arange(len(digests), dtype=np.uint64)
    cuts = np.array_split(places, pieces)
    np.random.default_rng(seed).shuffle(order := list(range(pieces)))
    with RepeatedIds(budget_bytes) as ids:
        for piece in order:
            ids.add(digests[cuts[piece].astype(np.int64)], cuts[piece])
        repeated, firsts = ids.repeats()
    return repeated.tolist(), firsts.tolist()


@pytest.mark.parametrize("seed", range(30))
def test_repeats_equal_those_of_the_reference(seed: int) -> None:
    """For evenly and unevenly distributed hashes, and for budgets that need files and splits."""
    rng = np.random.default_rng(seed)
    n, n_ids = int(rng.integers(0, 400)), int(rng.integers(1, 300))
    n_bits = int(rng.choice([2, 9, 17, 63]))
    known = rng.integers(0, 1 << n_bits, (n_ids, 2), dtype=np.uint64)
    if rng.random() < 0.5:
        known[:, 0] <<= np.uint64(64 - n_bits)
    digests = known[rng.integers(0, n_ids, n)]
    expected = _reference(digests)
    for budget in (1, 5 * ENTRY.itemsize, 2000, 1 << 20):
        assert _found(digests, budget, int(rng.integers(1, 12)), seed) == expected


def test_one_id_many_times() -> None:
    """Hashes that no bucket can separate: equal first halves, and equal hashes."""
    digests = np.zeros((50, 2), np.uint64)
    assert _found(digests, 10 * ENTRY.itemsize, 7, 0) == (list(range(1, 50)), [0] * 49)
    digests[:, 1] = np.arange(50) // 2
    assert _found(digests, 10 * ENTRY.itemsize, 7, 0)[0] == list(range(1, 50, 2))


def test_files_are_within_the_budget_and_deleted_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    budget, n = 100 * ENTRY.itemsize, 20_000
    largest = 0

    def measure(entries: NDArray[np.void]) -> tuple[Ids, Ids]:
        nonlocal largest
        largest = max(largest, entries.nbytes)
        return kept(entries)

    kept = repeated_ids.repeats_in
    monkeypatch.setattr(repeated_ids, "repeats_in", measure)
    digests = np.random.default_rng(0).integers(0, 2**63, (n, 2), dtype=np.uint64)
    with RepeatedIds(budget) as ids:
        for start in range(0, n, 50):
            ids.add(digests[start : start + 50], np.arange(start, start + 50, dtype=np.uint64))
        assert ids.spilled_bytes > 0.9 * n * ENTRY.itemsize
        assert list(tmp_path.iterdir()) != []
        assert len(ids.repeats()[0]) == 0
    assert 0 < largest <= budget
    assert list(tmp_path.iterdir()) == []


def test_no_ids_no_repeats() -> None:
    with RepeatedIds() as ids:
        ids.add(np.empty((0, 2), np.uint64), np.empty(0, np.uint64))
        places, firsts = ids.repeats()
    assert len(places) == len(firsts) == 0
