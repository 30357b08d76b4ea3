"""Check whether the columns of an input file fit SAMPLE, and cast them to it."""

from __future__ import annotations

import pyarrow as pa

from omnitrace_core.errors import InvalidSample
from stages.arrow.columns import combined
from stages.arrow.sample_schema import REQUIRED_COLUMNS, SAMPLE

_REQUIRED_FIELDS = {"messages": ("role", "content"), "messages.content": ("type",)}


def schema_problems(found: pa.Schema) -> list[str]:
    """Why a Parquet file with this schema cannot be read as samples; empty if it can."""
    problems = [f"column {name} is missing" for name in REQUIRED_COLUMNS if name not in found.names]
    for field in SAMPLE:
        if field.name in found.names:
            problems += _type_problems(found.field(field.name).type, field.type, field.name)
    return problems


def _type_problems(found: pa.DataType, expected: pa.DataType, path: str) -> list[str]:
    if pa.types.is_struct(expected) and pa.types.is_struct(found):
        # A cast would silently drop unknown fields, which may hold media.
        unknown = [field.name for field in found if field.name not in expected.names]
        problems = [f"{path}.{name} is not a known field" for name in unknown]
        problems += [
            f"{path}.{name} is missing"
            for name in _REQUIRED_FIELDS.get(path, ())
            if name not in found.names
        ]
        for field in found:
            if field.name in expected.names:
                inner = expected.field(field.name).type
                problems += _type_problems(field.type, inner, f"{path}.{field.name}")
        return problems
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if pa.types.is_list(expected) and any(is_list(found) for is_list in lists):
        return _type_problems(found.value_type, expected.value_type, path)
    try:
        pa.nulls(0, found).cast(expected)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return [f"{path} is {found}, which cannot be read as {expected}"]
    return []


def cast_to_sample_structs(table: pa.Table) -> tuple[pa.StructArray, dict[int, InvalidSample]]:
    """A shard's rows as SAMPLE structs, and an error for each row that does not fit, by index.

    Missing columns, and values that do not fit, become null.
    """
    try:
        return _cast(table), {}
    except pa.ArrowInvalid:
        return _cast_row_by_row(table)


def _cast_row_by_row(table: pa.Table) -> tuple[pa.StructArray, dict[int, InvalidSample]]:
    rows: list[pa.StructArray] = []
    misfits: dict[int, InvalidSample] = {}
    for index in range(len(table)):
        # `take`, because casting a slice casts the values of the rows around it, too.
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
    """A column, cast to its type in SAMPLE. Raises: ArrowInvalid, also for invalid UTF-8."""
    values = combined(table.column(name)).cast(SAMPLE.field(name).type)
    values.validate(full=True)
    return values
