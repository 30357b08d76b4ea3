"""Check whether the columns of an input file fit SAMPLE, and cast them to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from omnitrace_core.errors import InvalidSample
from stages.arrow.columns import combined
from stages.arrow.plain_types import plain_table, plain_type
from stages.arrow.sample_schema import REQUIRED_COLUMNS, SAMPLE

_REQUIRED_FIELDS = {"messages": ("role", "content"), "messages.content": ("type",)}


def schema_problems(found: pa.Schema) -> list[str]:
    """Why a Parquet file with this schema cannot be read as samples; empty if it can."""
    problems = list(_name_problems(found.names))
    problems += [
        f"column {name} is missing" for name in REQUIRED_COLUMNS if name not in found.names
    ]
    for field in SAMPLE:
        if found.names.count(field.name) == 1:
            kind = plain_type(found.field(field.name).type)
            problems += _type_problems(kind, field.type, field.name)
    return problems


def _name_problems(names: Sequence[str]) -> Iterator[str]:
    """Columns of which two could be meant by a name, or that would be ignored by their spelling."""
    for name in SAMPLE.names:
        if names.count(name) > 1:
            yield f"column {name} is there {names.count(name)} times; keep one of them"
    for spelled, name in misspelled(names, SAMPLE.names):
        yield f"column {spelled!r} is not {name}: names are in lower case; rename or drop it"


def misspelled(names: Iterable[str], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that differ from a known one only in case or in spaces around them, each with it."""
    by_key = {name.casefold(): name for name in known}
    for name in names:
        meant = by_key.get(name.strip().casefold())
        if meant is not None and name != meant:
            yield name, meant


def _type_problems(found: pa.DataType, expected: pa.DataType, path: str) -> list[str]:
    if pa.types.is_struct(expected) and pa.types.is_struct(found):
        # A cast would silently drop unknown fields, which may hold media.
        names = [field.name for field in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        problems = [f"{path}.{name} is there twice" for name in twice]
        unknown = [field.name for field in found if field.name not in expected.names]
        problems += [f"{path}.{name} is not a known field" for name in unknown]
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
    if pa.types.is_list(expected) and (pa.types.is_list(found) or pa.types.is_large_list(found)):
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
    table = plain_table(table)
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
