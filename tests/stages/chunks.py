"""Chunks built by hand, for the tests of the stages and of the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.arrow.chunk import Fields, StateRow, state_rows, with_results
from stages.arrow.sample_schema import SAMPLE
from stages.arrow.state_schema import CHUNK_PLAN
from stages.guards.row_guard import RowError, guarded
from stages.read_samples import read_samples

Row = dict[str, Any]


class Killed(BaseException):
    """Stands for the death of the process, which nothing in it can catch."""


def text_row(
    sample_id: str | None, text: str = "The lamp is red. Where is it?", **more: Any
) -> Row:
    """A sample of one user message of text."""
    return {"sample_id": sample_id, "messages": [user({"type": "text", "text": text})], **more}


def user(*parts: Row) -> Row:
    """A user message."""
    return {"role": "user", "content": list(parts)}


def write_shard(path: Path, rows: Sequence[Row], row_group_size: int | None = None) -> Path:
    """Rows as a Parquet shard of the input."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=SAMPLE)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def plan_of(
    path: Path,
    n_rows: int,
    first_row: int = 0,
    rows: Sequence[int] | None = None,
    **duplicates: str,
) -> pa.Table:
    """A planned chunk. rows: of single rows; duplicates: first row key by `row_<number>`."""
    row = {
        "chunk_key": "key",
        "shard": path.name,
        "uri": str(path),
        "first_row": first_row,
        "n_rows": n_rows,
        "rows": rows,
        "identity": None,
        "duplicates": [
            {"row": int(name.removeprefix("row_")), "first_row_key": key}
            for name, key in duplicates.items()
        ],
    }
    return pa.Table.from_pylist([row], schema=CHUNK_PLAN)


def read_chunk(tmp_path: Path, rows: Sequence[Row]) -> pa.Table:
    """Rows as the chunk that the read stage returns for them."""
    return read_samples(plan_of(write_shard(tmp_path / "shard.parquet", rows), len(rows)))


def errors_of(table: pa.Table) -> list[Mapping[str, str] | None]:
    """The error of each sample in a chunk of STATE rows."""
    return [row["error"] for row in table.to_pylist()[0]["samples"]]


def error_of(table: pa.Table, index: int) -> Mapping[str, str]:
    """The error of one sample, which must have one."""
    error = errors_of(table)[index]
    assert error is not None
    return error


def codes_of(table: pa.Table) -> list[str | None]:
    """The error code of each sample in a chunk of STATE rows."""
    return [error["code"] if error else None for error in errors_of(table)]


def run_rows(
    table: pa.Table,
    stage: str,
    work: Callable[[StateRow], Fields],
    *,
    fields: Sequence[str],
    drop: Sequence[str] = (),
) -> pa.Table:
    """Call `work` for every sample without an error, under the row guard.

    work: returns the new values of `fields` in the shape of STATE. drop: fields set to null.
    """
    results: list[Fields | RowError | None] = [
        None if row.failed else guarded(stage, row.row_key, partial(work, row))
        for row in state_rows(table)
    ]
    return with_results(table, results, fields=fields, drop=drop)
