"""A damaged shard costs its own rows: from the scan to the verdict, without Ray."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from omnitrace_core.errors import InputDamaged, InputSchemaError, InputUnreadable, RunError
from pipeline.commands.ingest import ingest
from pipeline.commands.inspect import inspect_sample
from pipeline.commands.summary import damage_text, plan_text, verdict_blocks
from pipeline.commands.terminal import plain
from pipeline.commands.validate import read_samples_of
from pipeline.driver.run import run
from pipeline.graph import plan_row
from pipeline.planning.input_damage import find_damage
from pipeline.planning.input_shards import list_input, scan_input
from pipeline.planning.plan import Chunk, make_plan
from pipeline.run_folder.commit import CommittedChunk
from stages.arrow.chunk import sample_structs
from stages.read_samples import read_samples
from tests.pipeline.made_runs import DAY, Worker, config_for, planned_run, row_keys, rows
from tests.stages.chunks import Killed, plan_of
from tests.stages.damaged_files import (
    break_footer,
    column_chunks,
    damage,
    damaged_at_random,
    full_row,
    write_groups,
)

# Chunks of four rows, so that chunks span row groups and row groups span chunks.
GROUP_ROWS, N_ROWS = 3, 9
# A damaged page header may ask for an encoding that nobody has.
LOST = (InputDamaged.code, InputUnreadable.code)


def _write_input(folder: Path) -> Path:
    """A shard of three row groups, and one that repeats the first id of each of them."""
    ids = [f"id{i}" for i in range(N_ROWS)]
    shard = write_groups(folder / "input" / "a.parquet", [full_row(i) for i in ids], GROUP_ROWS)
    repeats = [full_row(sample_id) for sample_id in ("id0", "id3", "id6", "new")]
    write_groups(folder / "input" / "b.parquet", repeats, 4)
    return shard


def _config(folder: Path) -> Any:
    return config_for(folder, run={"chunk_samples": 4})


@pytest.mark.parametrize("group", [0, 1, 2])
@pytest.mark.parametrize(
    "columns", [("sample_id",), ("messages",), ("sample_id", "messages"), ("metadata",)]
)
def test_damaged_row_group_costs_its_rows(
    columns: tuple[str, ...], group: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = _write_input(tmp_path)
    for column in columns:
        damage(shard, column, group)
    with caplog.at_level(logging.WARNING):
        planned = planned_run(_config(tmp_path))
    no_ids = "sample_id" in columns
    verdict = run(planned, Worker(planned.folder))
    published = {row["row_key"]: row for row in rows(planned.folder, "samples")}
    assert len(published) == N_ROWS + 4
    lost = range(group * GROUP_ROWS, (group + 1) * GROUP_ROWS)
    where = f"{shard}, row group {group} (rows {lost[0]} to {lost[-1]}) cannot be decoded: "
    for row in range(N_ROWS):
        found = published[f"a.parquet:{row}"]
        if row in lost:
            assert found["error_stage"] == "read"
            assert found["error_code"] == "input_damaged"
            assert found["message"].startswith(where)
            assert "restore the file" in found["message"]
            assert "run again with run.retry=[input_damaged]" in found["message"]
            assert found["sample_id"] == ("" if no_ids else f"id{row}")
        else:
            assert (found["status"], found["sample_id"]) == ("ok", f"id{row}")
    codes = [published[f"b.parquet:{row}"]["error_code"] for row in range(4)]
    repeats = ["duplicate_sample_id"] * 3 + [""]
    if no_ids:
        repeats[group] = ""
    assert codes == repeats
    n_repeats = 2 if no_ids else 3
    assert verdict.by_code == {"duplicate_sample_id": n_repeats, "input_damaged": GROUP_ROWS}
    assert verdict.finished
    assert (verdict.n_rows, verdict.n_error) == (13, GROUP_ROWS + n_repeats)
    assert row_keys(planned.folder, "spans") == sorted(
        key for key, row in published.items() if row["status"] == "ok" for _ in range(2)
    )
    # Said where repeats were not looked for, and only there.
    said = f"repeats of them are not found: row group {group} (rows {lost[0]} to {lost[-1]}): "
    assert (said in caplog.text) == no_ids
    assert ("whose sample_ids cannot be decoded" in plan_text(planned)) == no_ids
    shown = plain(inspect_sample(planned.folder.root, "" if no_ids else f"id{lost[0]}"))
    assert f"error in read, input_damaged: {where}" in shown
    assert "input_damaged" in plain(verdict_blocks(planned.folder, verdict))


@pytest.mark.slow
def test_resumed_run_publishes_the_same(tmp_path: Path) -> None:
    shard = _write_input(tmp_path)
    damage(shard, "sample_id", 1)
    damage(shard, "messages", 2)
    whole = planned_run(config_for(tmp_path, run={"chunk_samples": 4, "id": "whole"}))
    run(whole, Worker(whole.folder))
    planned = planned_run(_config(tmp_path))

    def killed(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from Worker(planned.folder)(chunks[:2])
        raise Killed

    with pytest.raises(Killed):
        run(planned, killed)
    later = planned_run(_config(tmp_path), lambda: DAY + datetime.timedelta(days=1))
    assert later.plan == planned.plan
    assert run(later, Worker(later.folder)).finished
    assert rows(later.folder, "samples") == rows(whole.folder, "samples")


def test_restored_shard_is_done_again(tmp_path: Path) -> None:
    shard = _write_input(tmp_path)
    whole = shard.read_bytes()
    damage(shard, "messages", 0)
    planned = planned_run(_config(tmp_path))
    assert run(planned, Worker(planned.folder)).by_code["input_damaged"] == 3
    shard.unlink()
    shard.write_bytes(whole)
    planned = planned_run(_config(tmp_path))
    assert run(planned, Worker(planned.folder)).by_code == {"duplicate_sample_id": 3}


def test_shard_that_is_restored_with_its_time_is_done_by_a_retry(tmp_path: Path) -> None:
    shard = _write_input(tmp_path)
    whole, times = shard.read_bytes(), shard.stat()
    damage(shard, "messages", 0)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    planned = planned_run(_config(tmp_path))
    assert run(planned, Worker(planned.folder)).by_code["input_damaged"] == 3
    shard.write_bytes(whole)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    planned = planned_run(_config(tmp_path))
    assert run(planned, Worker(planned.folder)).by_code["input_damaged"] == 3
    settings = {"chunk_samples": 4, "retry": ["input_damaged"]}
    planned = planned_run(config_for(tmp_path, run=settings))
    assert run(planned, Worker(planned.folder)).by_code == {"duplicate_sample_id": 3}


def test_many_unreadable_shards_are_counted(tmp_path: Path) -> None:
    for number in range(23):
        (tmp_path / f"{number:02}.parquet").write_bytes(b"no Parquet")
    with pytest.raises(InputSchemaError) as raised:
        scan_input(list_input(str(tmp_path)))
    lines = raised.value.message.splitlines()
    assert len(lines) == 22
    assert lines[0] == "23 shards cannot be read:"
    assert "00.parquet is not a readable Parquet file" in lines[1]
    assert lines[-1].strip() == "and 3 others"


def test_what_the_reader_cannot_decode_is_not_called_damaged(tmp_path: Path) -> None:
    shard = _write_input(tmp_path)
    # The footer names the codec of a column after its path: 1, Snappy; 3, LZO (both times two).
    pieces = shard.read_bytes().split(b"\x05value\x15\x02")
    assert len(pieces) == 4
    before, *after = (b"\x05value\x15\x02".join(pieces[:2]), *pieces[2:])
    shard.write_bytes(before + b"\x05value\x15\x06" + b"\x05value\x15\x02".join(after))
    planned = planned_run(_config(tmp_path))
    verdict = run(planned, Worker(planned.folder))
    assert verdict.by_code == {"duplicate_sample_id": 3, "input_unreadable": 3}
    lost = {row["row_key"]: row for row in rows(planned.folder, "samples")}["a.parquet:4"]
    assert "LZO" in lost["message"]
    assert "may be intact" in lost["message"]
    assert "run.retry=[input_unreadable]" in lost["message"]
    assert "restore" not in lost["message"]
    text = damage_text(find_damage(list_input(str(tmp_path / "input"))))
    assert f"{shard}, row group 1 (rows 3 to 5), 3 samples lost: " in text
    assert "(a limit of the reader)" in text
    with pytest.raises(InputSchemaError, match=r"LZO.* the file may be intact"):
        ingest(str(shard), str(tmp_path / "out"))


def test_damage_counts_among_the_errors_that_a_run_allows(tmp_path: Path) -> None:
    shard = _write_input(tmp_path)
    for group in range(3):
        damage(shard, "messages", group)
    planned = planned_run(_config(tmp_path))
    verdict = run(planned, Worker(planned.folder))
    assert (verdict.finished, verdict.exit_code) == (True, 4)
    assert "12 of 13 rows are errors, above run.max_error_fraction=0.5" in verdict.reason


def test_shard_that_changed_is_not_called_damaged(tmp_path: Path) -> None:
    shard = _write_input(tmp_path)
    planned = planned_run(_config(tmp_path))

    def work(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        damage(shard, "messages", 0)  # which changes its time, too
        yield from Worker(planned.folder)(chunks)

    with pytest.raises(RunError, match="is not the file that was planned: it changed while"):
        run(planned, work)
    assert row_keys(planned.folder) == []


def test_footer_that_breaks_after_the_plan_is_named(tmp_path: Path) -> None:
    shard = _write_input(tmp_path)
    break_footer(shard)
    with pytest.raises(RunError, match=r"a\.parquet can no longer be read: .*; restore the file"):
        read_samples(plan_of(shard, N_ROWS))


def test_shard_without_a_readable_footer_is_refused_before_any_work(tmp_path: Path) -> None:
    shard = _write_input(tmp_path)
    break_footer(shard)
    with pytest.raises(InputSchemaError, match=r"a\.parquet is not a readable Parquet file"):
        planned_run(_config(tmp_path))


def test_validate_reports_what_the_run_loses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = _write_input(tmp_path)
    listing = list_input(str(tmp_path / "input"))
    assert find_damage(listing) == []
    damage(shard, "sample_id", 0)
    damage(shard, "metadata", 2)
    damaged = read_samples_of(listing, every_s=0)
    text = damage_text(damaged)
    assert "damage  6 samples in 2 row groups of 1 shard cannot be decoded" in text
    assert f"{shard}, row group 0 (rows 0 to 2), 3 samples lost: " in text
    assert f"{shard}, row group 2 (rows 6 to 8), 3 samples lost: " in text
    assert "reading the samples: 2 of 2 shards" in capsys.readouterr().err


def test_long_lists_of_damage_are_cut(tmp_path: Path) -> None:
    write_groups(tmp_path / "a.parquet", [full_row(str(i)) for i in range(23)], 1)
    for group in range(23):
        damage(tmp_path / "a.parquet", "messages", group)
    lines = damage_text(find_damage(list_input(str(tmp_path)))).splitlines()
    assert len(lines) == 22
    assert "23 samples in 23 row groups of 1 shard" in lines[0]
    assert lines[-1].strip() == "and 3 more row groups"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("checksums", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"compression": "none", "use_dictionary": False},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"compression": "snappy", "data_page_size": 64},
    ],
    ids=["plain", "zstd", "small-pages"],
)
def test_damage_of_any_kind_costs_row_groups_and_nothing_else(
    options: dict[str, Any], checksums: bool, seed: int, tmp_path: Path
) -> None:
    """Each row comes back; `validate` names those that are lost; with checksums, none is wrong."""
    path = tmp_path / "a.parquet"
    given = [full_row(f"id{i}") for i in range(12)]
    write_groups(path, given, 4, write_page_checksum=checksums, **options)
    whole, chunks = path.read_bytes(), list(column_chunks(path))
    expected = _read(path)
    random = Random(seed)
    n_damaged = 0
    for _ in range(12):
        path.write_bytes(damaged_at_random(whole, chunks, random))
        found = _read(path)
        assert [row["row_key"] for row in found] == [row["row_key"] for row in expected]
        lost = [
            i for i, row in enumerate(found) if _code(row) in ("input_damaged", "input_unreadable")
        ]
        shards = find_damage(list_input(str(path)))
        damaged = [item.group for shard in shards for item in shard.groups]
        assert lost == [i for group in damaged for i in range(group.first_row, group.end)]
        n_damaged += bool(lost)
        for before, after in zip(expected, found, strict=True):
            if checksums and _code(after) is None:
                assert after == before
    assert n_damaged >= (6 if checksums else 3)


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of a shard as the read stage gives them, in chunks that span row groups."""
    plan = make_plan(scan_input(list_input(str(path))), "f", 5, {})
    return [
        row
        for chunk in plan.chunks(plan.shards[0])
        for row in sample_structs(read_samples(plan_row(chunk))).to_pylist()
    ]


def _code(row: dict[str, Any]) -> str | None:
    return row["error"] and row["error"]["code"]
