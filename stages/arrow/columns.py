"""Build Arrow columns for all samples of a chunk at once.

Each row of a table has an owner: the index of the sample (or span) it belongs to. The rows of a
table are in the order of their owners.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Columns = Mapping[str, object]


def combined(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array. `combine_chunks` would copy a single chunk too; media are large."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def owners(counts: Mapping[int, int]) -> IntArray:
    """The owner of each row; `counts` is the number of rows by owner."""
    owner = np.fromiter(counts, np.int64, len(counts))
    return np.repeat(owner, np.fromiter(counts.values(), np.int64, len(counts)))


def take(array: pa.Array, indices: IntArray) -> pa.Array:
    """`array.take(indices)`, without a copy if that is the whole array in its order."""
    whole = len(indices) == len(array) and bool((indices == np.arange(len(array))).all())
    return array if whole else array.take(pa.array(indices))


def struct_array(struct: pa.StructType, columns: Columns, n_rows: int) -> pa.StructArray:
    """Columns as `n_rows` structs; a field that `columns` does not name is null."""
    arrays = []
    for field in struct:
        values = columns.get(field.name)
        if values is None:
            values = pa.nulls(n_rows, field.type)
        # Arrow converts Python numbers to a narrower type by itself, numpy's only by a cast.
        if isinstance(values, np.ndarray):
            values = pa.array(values).cast(field.type)
        arrays.append(values if isinstance(values, pa.Array) else pa.array(values, field.type))
    return pa.StructArray.from_arrays(arrays, fields=list(struct))


def replace_fields(rows: pa.StructArray, columns: Columns) -> pa.StructArray:
    """The same structs with new values in the fields that `columns` names."""
    fields = {field.name: rows.field(field.name) for field in rows.type}
    mask = rows.is_null() if rows.null_count else None
    arrays = struct_array(rows.type, {**fields, **columns}, len(rows)).flatten()
    return pa.StructArray.from_arrays(arrays, fields=list(rows.type), mask=mask)


def list_array(counts: Mapping[int, int], n_lists: int, values: pa.Array) -> pa.ListArray:
    """`values` as `n_lists` lists; `counts` is the length of each list by index, 0 if absent."""
    lengths = np.zeros(n_lists, np.int64)
    lengths[np.fromiter(counts, np.int64, len(counts))] = list(counts.values())
    return pa.ListArray.from_arrays(offsets(lengths), values)


def offsets(lengths: IntArray) -> pa.Array:
    """The offsets of lists of these lengths: where each begins, and where the last ends."""
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
