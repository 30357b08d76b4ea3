"""Nested Arrow columns as plain Python values, decoded column by column."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def python_values(column: pa.Array) -> list[Any]:
    """The values of a column, as `to_pylist` gives them but several times faster where they nest.

    Two things differ. A map is a dict, without the keys that have no value. Binary values are views
    of Arrow's memory, so that media are not copied where only their presence or length matters.
    """
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_struct(column.type):
        values = _structs(column)
    elif pa.types.is_map(column.type):
        values = _maps(column)
    elif pa.types.is_list(column.type):
        values = _lists(column)
    elif pa.types.is_large_binary(column.type):
        values = _views(column)
    else:
        return column.to_pylist()
    if column.null_count:
        valid = column.is_valid().to_pylist()
        return [value if known else None for value, known in zip(values, valid, strict=True)]
    return values


def _views(column: pa.LargeBinaryArray) -> list[Any]:
    # Not by `Scalar.as_buffer`: a scalar of an array is a copy.
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    every = memoryview(b"" if data is None else data)
    return [every[start:end] for start, end in pairwise(ends.tolist())]


def _structs(column: pa.StructArray) -> list[Any]:
    names = column.type.names
    fields = [python_values(column.field(name)) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*fields, strict=True)]


def _lists(column: pa.ListArray) -> list[Any]:
    values = python_values(column.flatten())
    ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(column), 0)).to_pylist()
    return [values[start:end] for start, end in pairwise([0, *ends])]


def _maps(column: pa.MapArray) -> list[Any]:
    offsets = column.offsets.to_pylist()
    keys, items = (_between(values, offsets) for values in (column.keys, column.items))
    pairs = list(zip(keys, items, strict=True))
    first = offsets[0]
    return [
        {key: item for key, item in pairs[start - first : end - first] if item is not None}
        for start, end in pairwise(offsets)
    ]


def _between(values: pa.Array, offsets: Sequence[int]) -> list[Any]:
    return python_values(values.slice(offsets[0], offsets[-1] - offsets[0]))
