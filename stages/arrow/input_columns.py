"""Check whether the columns of an input file fit SAMPLE, and cast them to it."""

from __future__ import annotations

import pyarrow as pa

from omnitrace_core.errors import InvalidSample
from stages.arrow.columns import combined
from stages.arrow.sample_schema import REQUIRED_COLUMNS, SAMPLE

_REQUIRED_FIELDS = {"messages": ("role", "content"), "messages.content": ("type",)}


def schema_problems(have: pa.Schema) -> list[str]:
    """What keeps a Parquet file with this schema from being read as samples; empty if nothing."""
    problems = [f"column {name} is missing" for name in REQUIRED_COLUMNS if name not in have.names]
    for field in SAMPLE:
        if field.name in have.names:
            problems += _type_problems(have.field(field.name).type, field.type, field.name)
    return problems


def _type_problems(have: pa.DataType, want: pa.DataType, path: str) -> list[str]:
    if pa.types.is_struct(want) and pa.types.is_struct(have):
        # A cast would drop unknown fields in silence, and media with them.
        unknown = [field.name for field in have if field.name not in want.names]
        problems = [f"{path}.{name} is not a known field" for name in unknown]
        problems += [
            f"{path}.{name} is missing"
            for name in _REQUIRED_FIELDS.get(path, ())
            if name not in have.names
        ]
        for field in have:
            if field.name in want.names:
                wanted = want.field(field.name).type
                problems += _type_problems(field.type, wanted, f"{path}.{field.name}")
        return problems
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if pa.types.is_list(want) and any(is_list(have) for is_list in lists):
        return _type_problems(have.value_type, want.value_type, path)
    try:
        pa.nulls(0, have).cast(want)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return [f"{path} is {have}, which cannot be read as {want}"]
    return []


def conform(table: pa.Table) -> tuple[pa.StructArray, dict[int, InvalidSample]]:
    """A shard's rows in the shape of SAMPLE, and an error by row for those that do not fit it.

    Columns that are missing become null, as do the values that do not fit.
    """
    try:
        return _cast(table), {}
    except pa.ArrowInvalid:
        return _cast_row_by_row(table)


def _cast_row_by_row(table: pa.Table) -> tuple[pa.StructArray, dict[int, InvalidSample]]:
    rows, misfits = [], {}
    for index in range(len(table)):
        # Taken, not sliced: casting a slice casts the values of all rows behind it.
        row = table.take([index])
        for name in row.column_names:
            try:
                _column(row, name)
            except pa.ArrowInvalid as error:
                misfits[index] = InvalidSample(
                    f"column {name} holds a value that does not fit it: {error}"
                )
                row = row.drop_columns([name])
        rows.append(_cast(row))
    return pa.concat_arrays(rows), misfits


def _cast(table: pa.Table) -> pa.StructArray:
    columns = [
        _column(table, field.name)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in SAMPLE
    ]
    return pa.StructArray.from_arrays(columns, fields=list(SAMPLE))


def _column(table: pa.Table, name: str) -> pa.Array:
    """A column as SAMPLE has it. Raises: ArrowInvalid, for text that is not UTF-8, too."""
    values = combined(table.column(name)).cast(SAMPLE.field(name).type)
    values.validate(full=True)
    return values
