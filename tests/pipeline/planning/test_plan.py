from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pipeline.planning.input_shards import list_input, scan_input
from pipeline.planning.plan import Plan, assign_numbers, make_plan, number_of_label, shard_label
from tests.pipeline.made_runs import write_input


def _plan(folder: Path, chunk_samples: int = 2, fingerprint: str = "f") -> Plan:
    return make_plan(scan_input(list_input(str(folder))), fingerprint, chunk_samples, {})


def test_chunks_cover_each_row_once(tmp_path: Path) -> None:
    write_input(tmp_path, a=[str(i) for i in range(5)], b=[], c=["x"])
    for size in (1, 2, 5, 100):
        plan = _plan(tmp_path, size)
        chunks = [chunk for shard in plan.shards for chunk in plan.chunks(shard)]
        rows = [(c.shard, c.first_row + i) for c in chunks for i in range(c.n_rows)]
        assert rows == [*(("a.parquet", i) for i in range(5)), ("c.parquet", 0)]
        assert all(1 <= chunk.n_rows <= size for chunk in chunks)
        assert len({chunk.key for chunk in chunks}) == len(chunks) == plan.n_chunks
        assert plan.n_rows == 6


def test_equal_inputs_give_equal_plans(tmp_path: Path) -> None:
    write_input(tmp_path, a=["1", "2", "1"])
    assert _plan(tmp_path) == _plan(tmp_path)
    assert _plan(tmp_path).digest == _plan(tmp_path).digest


def test_keys_change_with_what_they_depend_on(tmp_path: Path) -> None:
    write_input(tmp_path, a=["1", "2", "3"], b=["4"])
    plan = _plan(tmp_path)
    first, second = plan.shards
    keys = {chunk.key for shard in plan.shards for chunk in plan.chunks(shard)}
    for other in (_plan(tmp_path, fingerprint="g"), _plan(tmp_path / "a.parquet", fingerprint="g")):
        assert not keys & {c.key for shard in other.shards for c in other.chunks(shard)}
    os.utime(tmp_path / "a.parquet", (1, 1))
    touched = _plan(tmp_path)
    assert touched.shards[0].key != first.key
    assert touched.shards[1] == second
    assert not {c.key for c in touched.chunks(touched.shards[0])} & keys


def test_chunks_of_a_retry_hold_its_rows_and_have_keys_of_their_own(tmp_path: Path) -> None:
    write_input(tmp_path, a=["1", "2", "1", "3", "3"])
    plan = _plan(tmp_path)
    (shard,) = plan.shards
    first, second = plan.retry_chunks(shard, [0, 2, 4], 1)
    assert (first.rows, first.first_row, first.n_rows) == ((0, 2), 0, 2)
    assert (second.rows, second.first_row, second.n_rows) == ((4,), 4, 1)
    assert [list(chunk.row_numbers) for chunk in plan.chunks(shard)] == [[0, 1], [2, 3], [4]]
    assert [[item.row for item in chunk.duplicates] for chunk in (first, second)] == [[2], [4]]
    chunks = [
        *plan.chunks(shard),
        *(first, second),
        *plan.retry_chunks(shard, [0, 2, 4], 2),
        *plan.retry_chunks(shard, [0, 1, 4], 1),
    ]
    assert len({chunk.key for chunk in chunks}) == len(chunks) - 1  # (4,) of retry 1, twice


def test_another_chunk_size_keeps_finished_shards(tmp_path: Path) -> None:
    write_input(tmp_path, a=["1", "2", "3"])
    assert _plan(tmp_path, 2).shards == _plan(tmp_path, 3).shards


def test_new_duplicate_changes_only_the_chunk_it_is_in(tmp_path: Path) -> None:
    """A new shard that sorts before others can turn rows of theirs into duplicates."""
    write_input(tmp_path, b=["1", "2", "3", "4"])
    before = _plan(tmp_path)
    write_input(tmp_path, a=["3"])
    after = _plan(tmp_path)
    old = [chunk.key for chunk in before.chunks(before.shards[0])]
    new = [chunk.key for chunk in after.chunks(after.shards[1])]
    assert new[0] == old[0]
    assert new[1] != old[1]
    assert after.shards[1].key != before.shards[0].key


def test_numbers_of_an_unchanged_input_never_change() -> None:
    names = ["a", "b", "c", "d"]
    fresh = assign_numbers(names, {})
    assert fresh == {"a": 0, "b": 1, "c": 2, "d": 3}
    for published in ([], ["c"], ["a", "d"], names):
        assert assign_numbers(names, {name: fresh[name] for name in published}) == fresh


def test_numbers_when_shards_are_added_and_removed() -> None:
    published = {"b": 0, "c": 1, "e": 2}
    assert assign_numbers(["a", "b", "c", "d", "e"], published) == {
        **published,
        "a": 3,
        "d": 4,
    }
    # c is removed: its number is not free, now and when it is retired.
    assert assign_numbers(["a", "b", "e"], published) == {"b": 0, "e": 2, "a": 3}
    del published["c"]
    assert assign_numbers(["a", "b", "e"], published, {1}) == {"b": 0, "e": 2, "a": 3}


def test_label_of_a_shard_has_its_number() -> None:
    for number in (0, 7, 99_999, 100_000):
        assert number_of_label(shard_label(number)) == number
    for other in ("shard-7", "shard-", "shard-0000x", "mine", "shard-000007", "shard--0001"):
        assert number_of_label(other) is None, other


def test_digests_of_different_plans_differ(tmp_path: Path) -> None:
    write_input(tmp_path, a=["1"], b=["2"])
    plan = _plan(tmp_path)
    renumbered = tuple(replace(shard, number=shard.number + 1) for shard in plan.shards)
    assert replace(plan, shards=renumbered).digest != plan.digest
    assert replace(plan, shards=plan.shards[:1]).digest != plan.digest
