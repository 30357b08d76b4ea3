"""First stage: read the rows of a planned chunk from their Parquet shard, and check them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TypeAlias

import pyarrow as pa

from omnitrace_core.addresses import shown_address
from omnitrace_core.errors import (
    DamagedFile,
    DuplicateSampleId,
    InputDamaged,
    InputUnreadable,
    RunError,
    SampleError,
    UnsupportedFile,
)
from omnitrace_core.samples.checks import check_row
from omnitrace_core.samples.rows import SampleRow
from omnitrace_core.storage.files import FileChanged, open_version
from stages.arrow.chunk import error_fields, row_key, with_rows
from stages.arrow.input_columns import cast_to_sample_structs
from stages.arrow.parquet_reader import ParquetReader, RowGroup
from stages.arrow.plain_types import plain_table
from stages.arrow.python_values import python_values
from stages.arrow.sample_schema import SAMPLE
from stages.arrow.state_schema import STATE
from stages.guards.node_guard import naming_node_faults
from stages.guards.row_guard import RowError, as_row_error, guarded

STAGE = "read"
_CHANGED = "it changed while the run was reading it; start the run again"
_RESTORE = "restore the file, or write it again, and start the run again"

# SAMPLE structs, and the errors of those that cannot be samples, by index.
Rows: TypeAlias = tuple[pa.StructArray, Mapping[int, SampleError]]


@naming_node_faults(STAGE)
def read_samples(plan: pa.Table) -> pa.Table:
    """A one-row CHUNK_PLAN table to the chunk it plans, as STATE rows.

    A row becomes an error row if it is not a valid sample, has no `sample_id`, has the `sample_id`
    of an earlier row, or lies in a row group that cannot be decoded. Later stages build samples
    from the other rows unchecked.

    Raises:
        RunError: the shard has changed since it was planned, or its footer can no longer be read.
        StoreUnavailable: the object store does not respond.
        NodeFault: this machine lacks file handles or the like.
    """
    chunk = plan.to_pylist()[0]
    planned = chunk["rows"] or range(chunk["first_row"], chunk["first_row"] + chunk["n_rows"])
    samples, broken = _read_planned(chunk["uri"], chunk["identity"], planned)
    repeats = {item["row"]: item["first_row_key"] for item in chunk["duplicates"]}
    row_keys, errors = [], []
    for index, (row, sample) in enumerate(zip(planned, python_values(samples), strict=True)):
        row_keys.append(row_key(chunk["shard"], row))
        error = (
            as_row_error(STAGE, broken[index])
            if index in broken
            else _check(sample, row_keys[-1], repeats.get(row))
        )
        errors.append(error and error_fields(error))
    columns = {
        "row_key": pa.array(row_keys, pa.string()),
        "sample": samples,
        "error": pa.array(errors, STATE.field("error").type),
    }
    empty = {
        field.name: pa.nulls(len(samples), field.type)
        for field in STATE
        if field.name not in columns
    }
    states = pa.StructArray.from_arrays(
        [{**columns, **empty}[name] for name in STATE.names], fields=list(STATE)
    )
    return with_rows(plan, states)


def _check(sample: SampleRow, key: str, first_row_key: str | None) -> RowError | None:
    """The error of a row that cannot be traced, or None."""
    if first_row_key is not None:
        return as_row_error(
            STAGE,
            DuplicateSampleId(
                f"{key}: sample_id {sample['sample_id']!r} was already seen at {first_row_key}; "
                "only the first is traced, give every sample its own id"
            ),
        )
    return guarded(STAGE, key, lambda: check_row(sample))


def _read_planned(uri: str, identity: str | None, rows: Sequence[int]) -> Rows:
    """Rows of a shard. rows: their numbers, in order.

    Raises:
        RunError: it is not the planned shard, or its footer is damaged.
    """
    try:
        with open_version(uri, identity) as file:
            return _read_rows(file, uri, rows)
    except (FileChanged, FileNotFoundError) as error:
        raise RunError(f"{uri} is not the file that was planned: {_CHANGED}") from error
    except DamagedFile as error:
        raise RunError(f"{uri} can no longer be read: {error.message}; {_RESTORE}") from error


def _read_rows(file: IO[bytes], uri: str, rows: Sequence[int]) -> Rows:
    """Rows of a shard, from the row groups that hold them.

    Raises: DamagedFile: the footer cannot be read.
    """
    with ParquetReader(file) as shard:
        if shard.n_rows <= rows[-1]:
            raise RunError(
                f"{uri} has {shard.n_rows} rows and not the {rows[-1] + 1} of the plan: {_CHANGED}"
            )
        columns = [name for name in shard.schema.names if name in SAMPLE.names]
        tables: list[pa.Table] = []
        damaged: dict[int, SampleError] = {}
        end = 0  # of the rows of earlier groups
        for group in shard.groups:
            start, end = end, bisect_left(rows, group.end, end)
            wanted = rows[start:end]
            if not wanted:
                continue
            try:
                found = list(_rows_of(shard.batches(group, columns), group, wanted))
            except DamagedFile as error:
                # Only whole row groups count: where one column is damaged, a row has no complete
                # sample, and a damaged page may shift its column's rows against the others.
                found = list(_rows_of(_ids_of(shard, group).to_batches(), group, wanted))
                reason = _lost(f"{shown_address(uri)}, {group}", error)
                damaged.update((index, reason) for index in range(start, end))
            tables += found
    samples, misfits = _cast(tables)
    return samples, {**misfits, **damaged}


def _rows_of(
    batches: Iterable[pa.RecordBatch], group: RowGroup, rows: Sequence[int]
) -> Iterator[pa.Table]:
    """Those rows of a row group, in plain columns. batches: all of its rows."""
    first_row, start = group.first_row, 0
    for batch in batches:
        end = bisect_left(rows, first_row + len(batch), start)
        if start < end:
            # Plain, because Arrow cannot take rows of views.
            table = plain_table(pa.Table.from_batches([batch]))
            if end - start < len(batch):
                # `take`, because a slice would keep the whole batch in memory.
                table = table.take(pa.array([row - first_row for row in rows[start:end]]))
            yield table
        first_row, start = first_row + len(batch), end


def _lost(where: str, error: DamagedFile) -> SampleError:
    """Why the rows of a row group are lost. where: it is."""
    kind = InputUnreadable if isinstance(error, UnsupportedFile) else InputDamaged
    # By the name of the code, because a file that is restored with its size and time counts as
    # unchanged.
    return kind(
        f"{where} cannot be decoded: {error.message}; {error.remedy}, and run again with "
        f"run.retry=[{kind.code}]"
    )


def _cast(tables: Sequence[pa.Table]) -> tuple[pa.StructArray, dict[int, SampleError]]:
    """Tables as SAMPLE structs, with errors by index, as of `cast_to_sample_structs`.

    One by one: together, the bytes of several may be more than Arrow puts into one column.
    """
    structs: list[pa.StructArray] = []
    misfits: dict[int, SampleError] = {}
    n_rows = 0
    for table in tables:
        found, wrong = cast_to_sample_structs(table)
        misfits.update((n_rows + index, error) for index, error in wrong.items())
        structs.append(found)
        n_rows += len(found)
    return structs[0] if len(structs) == 1 else pa.concat_arrays(structs), misfits


def _ids_of(shard: ParquetReader, group: RowGroup) -> pa.Table:
    """The sample_ids of a row group; null if they cannot be decoded."""
    try:
        return plain_table(shard.read(group, ["sample_id"]))
    except DamagedFile:
        return pa.table({"sample_id": pa.nulls(group.n_rows)})
