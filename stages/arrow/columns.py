"""Arrow columns of a chunk, built for all of its samples at once.

A table's row has an owner: the index of the sample (or span) it belongs to. The rows of a table lie
in the order of their owners.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Index = NDArray[np.int64]
Columns = Mapping[str, object]


def combined(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array. `combine_chunks` would copy a single chunk too; media are large."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def owners(counts: Mapping[int, int]) -> Index:
    """The owner of each row, where `counts` says how many rows each owner has."""
    owner = np.fromiter(counts, np.int64, len(counts))
    return np.repeat(owner, np.fromiter(counts.values(), np.int64, len(counts)))


def take(array: pa.Array, where: Index) -> pa.Array:
    """`array.take`, without a copy of large rows where it would take all of them as they are."""
    whole = len(where) == len(array) and bool((where == np.arange(len(array))).all())
    return array if whole else array.take(pa.array(where))


def structs(kind: pa.StructType, columns: Columns, n_rows: int) -> pa.StructArray:
    """Columns as `n_rows` structs; a field that `columns` does not name is null."""
    arrays = []
    for field in kind:
        values = columns.get(field.name)
        if values is None:
            values = pa.nulls(n_rows, field.type)
        # Numbers in numpy are cast as Python's own are; a narrower type has to be asked for.
        if isinstance(values, np.ndarray):
            values = pa.array(values).cast(field.type)
        arrays.append(values if isinstance(values, pa.Array) else pa.array(values, field.type))
    return pa.StructArray.from_arrays(arrays, fields=list(kind))


def replaced(rows: pa.StructArray, columns: Columns) -> pa.StructArray:
    """The same structs with other values in the fields that `columns` names."""
    fields = {field.name: rows.field(field.name) for field in rows.type}
    mask = rows.is_null() if rows.null_count else None
    arrays = structs(rows.type, {**fields, **columns}, len(rows)).flatten()
    return pa.StructArray.from_arrays(arrays, fields=list(rows.type), mask=mask)


def lists(counts: Mapping[int, int], n_lists: int, values: pa.Array) -> pa.ListArray:
    """`n_lists` lists of `values`; those that `counts` does not name are empty."""
    lengths = np.zeros(n_lists, np.int64)
    lengths[np.fromiter(counts, np.int64, len(counts))] = list(counts.values())
    return pa.ListArray.from_arrays(offsets(lengths), values)


def offsets(lengths: Index) -> pa.Array:
    """Where lists of these lengths begin, and where the last one ends."""
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
