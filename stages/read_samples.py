"""First stage: read the rows of a planned chunk from their Parquet shard, and check them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from omnitrace_core.errors import DuplicateSampleId, RunError
from omnitrace_core.samples.checks import check_row
from omnitrace_core.samples.rows import SampleRow
from omnitrace_core.storage.files import identity_at, open_file
from stages.arrow.chunk import error_fields, row_key, with_rows
from stages.arrow.input_columns import cast_to_sample_structs
from stages.arrow.python_values import python_values
from stages.arrow.sample_schema import SAMPLE
from stages.arrow.state_schema import STATE
from stages.guards.row_guard import RowError, as_row_error, guarded

STAGE = "read"
_CHANGED = "it changed while the run was reading it; start the run again"


def read_samples(plan: pa.Table) -> pa.Table:
    """A one-row CHUNK_PLAN table to the chunk it plans, as STATE rows.

    A row becomes an error row if it is not a valid sample, has no `sample_id`, or has the
    `sample_id` of an earlier row. Later stages build samples from the other rows unchecked.

    Raises:
        RunError: the shard has changed since it was planned.
        StoreUnavailable: the object store does not respond.
    """
    chunk = plan.to_pylist()[0]
    samples, misfits = cast_to_sample_structs(
        _read_rows(chunk["uri"], chunk["first_row"], chunk["n_rows"])
    )
    # Checked after reading, so that the rows that were read are those of the planned shard.
    if chunk["identity"] is not None and identity_at(chunk["uri"]) != chunk["identity"]:
        raise RunError(f"{chunk['uri']} is not the file that was planned: {_CHANGED}")
    repeats = {item["row"]: item["first_row_key"] for item in chunk["duplicates"]}
    row_keys, errors = [], []
    for index, sample in enumerate(python_values(samples)):
        row = chunk["first_row"] + index
        row_keys.append(row_key(chunk["shard"], row))
        error = (
            as_row_error(STAGE, misfits[index])
            if index in misfits
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
    rows = pa.StructArray.from_arrays(
        [{**columns, **empty}[name] for name in STATE.names], fields=list(STATE)
    )
    return with_rows(plan, rows)


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


def _read_rows(uri: str, first_row: int, n_rows: int) -> pa.Table:
    """Rows [first_row, first_row + n_rows) of a shard, from the row groups that hold them."""
    with open_file(uri) as file, pq.ParquetFile(file) as shard:
        wanted, start, skipped = [], 0, 0
        for group in range(shard.num_row_groups):
            end = start + shard.metadata.row_group(group).num_rows
            if end <= first_row:
                skipped = end
            elif start < first_row + n_rows:
                wanted.append(group)
            start = end
        if start < first_row + n_rows:
            raise RunError(
                f"{uri} has {start} rows and not the {first_row + n_rows} of the plan: {_CHANGED}"
            )
        columns = [name for name in shard.schema_arrow.names if name in SAMPLE.names]
        rows = shard.read_row_groups(wanted, columns=columns, use_threads=False)
    # `take`, because a slice would keep the whole row group in memory.
    return rows.take(pa.array(range(first_row - skipped, first_row - skipped + n_rows)))
