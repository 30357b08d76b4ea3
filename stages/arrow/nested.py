"""Rebuild nested Arrow arrays around other values."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc


def restruct(like: pa.StructArray, columns: Mapping[str, pa.Array]) -> pa.StructArray:
    """Structs of these columns, of the type of `like` and null where it is."""
    return pa.StructArray.from_arrays(
        list(columns.values()), fields=list(like.type), mask=like.is_null()
    )


def relist(like: pa.ListArray, values: pa.Array) -> pa.ListArray:
    """`values` cut into lists as long as those of `like`."""
    lengths = pc.fill_null(pc.list_value_length(like), 0)
    ends = pc.cumulative_sum(lengths).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.ListArray.from_arrays(offsets, values, type=like.type, mask=like.is_null())
