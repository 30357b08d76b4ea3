"""Damaged files of a published run are named by what reads them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from omnitrace_core.errors import RunError
from pipeline.commands.inspect import inspect_sample
from pipeline.driver.run import run
from pipeline.run_folder.manifests import manifest_name, read_manifests
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.stored_shard import read_shard
from pipeline.run_folder.table_files import TableWriter, table_name
from stages.arrow.table_schema import TABLES
from tests.pipeline.made_runs import Worker, assert_complete, config_for, planned_run
from tests.stages.damaged_files import break_footer, column_chunks, overwrite

_COLUMNS = {"samples": ["row_key", "status"], "spans": ["row_key", "text"], "traces": ["row_key"]}


@pytest.fixture
def planned(folder: Path) -> PlannedRun:
    planned = planned_run(config_for(folder))
    run(planned, Worker(planned.folder, response="In the hall."))
    return planned


def _read_back(planned: PlannedRun) -> int:
    manifest = read_manifests(planned.folder)["a.parquet"]
    chunks = read_shard(planned.folder, manifest, 2, _COLUMNS, 64)
    return sum(len(chunk.samples) for chunk in chunks)


@pytest.mark.parametrize("table", ["samples", "spans", "traces"])
def test_one_bit_of_a_published_table_is_found(table: str, planned: PlannedRun) -> None:
    assert _read_back(planned) == 3
    path = Path(planned.folder.url(table_name(table, 0)))
    (chunk,) = column_chunks(path, "row_key")
    last = chunk.start + chunk.n_bytes - 1
    overwrite(path, last, bytes([path.read_bytes()[last] ^ 1]))
    said = rf"{table}/shard-00000\.parquet, row group 0 \(rows 0 to \d\) cannot be decoded: "
    with pytest.raises(RunError, match=said):
        _read_back(planned)
    if table != "traces":
        said = rf"{table}/shard-00000\.parquet cannot be decoded: .*; restore it, or delete it and"
        with pytest.raises(RunError, match=said):
            inspect_sample(planned.folder.root, "1")


def test_published_table_without_a_readable_footer_is_named(planned: PlannedRun) -> None:
    path = Path(planned.folder.url(table_name("spans", 0)))
    break_footer(path)
    with pytest.raises(RunError, match=r"spans/shard-00000\.parquet cannot be decoded: "):
        _read_back(planned)


def test_remedy_publishes_the_shard_again(folder: Path, planned: PlannedRun) -> None:
    path = Path(planned.folder.url(table_name("spans", 0)))
    overwrite(path, 4, bytes(100))
    path.unlink()
    planned.folder.delete(manifest_name(0))
    again = planned_run(config_for(folder))
    run(again, Worker(again.folder, response="In the hall."))
    assert_complete(again)
    assert _read_back(again) == 3


def test_checksums_leave_the_bytes_the_same_each_time(planned: PlannedRun, tmp_path: Path) -> None:
    path = Path(planned.folder.url(table_name("spans", 0)))
    table = pq.read_table(path, use_threads=False).cast(TABLES["spans"])
    for name in ("x", "y"):
        with TableWriter(tmp_path / name, TABLES["spans"]) as writer:
            writer.add(table)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes() == path.read_bytes()
