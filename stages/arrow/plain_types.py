"""Turn columns of the types that Parquet writers choose into plain ones, with the same values.

Text may come as a view, a dictionary or a UUID, bytes as a view, lists as views or of a fixed size,
each inside of structs, lists and maps. Arrow can neither cast nor take rows of some of them.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.arrow.columns import combined


def plain_table(table: pa.Table) -> pa.Table:
    """The table with plain columns; columns that are plain already are not copied."""
    columns = [
        column if is_plain(column.type) else plain(combined(column)) for column in table.columns
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def is_plain(kind: pa.DataType) -> bool:
    """Whether `plain` returns an array of this type as it is."""
    return bool(plain_type(kind) == kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of what `plain` returns for an array of this type."""
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)))
    if _is_other_list(kind):
        return pa.large_list(kind.value_field.with_type(plain_type(kind.value_type)))
    return kind


def plain(column: pa.Array) -> pa.Array:
    """The same values in an array of the type `plain_type`; a UUID as its canonical text."""
    kind = column.type
    if is_plain(kind):
        return column
    if isinstance(kind, pa.UuidType):
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.array(texts, pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        return plain(column.storage)
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary).take(column.indices)
    if pa.types.is_struct(kind):
        return _structs(column)
    if pa.types.is_map(kind):
        return _maps(column)
    if pa.types.is_list(kind) or _is_other_list(kind):
        return _lists(column)
    return column.cast(plain_type(kind))


def _is_other_list(kind: pa.DataType) -> bool:
    checks = (
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(check(kind) for check in checks)


def _structs(column: pa.StructArray) -> pa.StructArray:
    fields = list(plain_type(column.type))
    arrays = [plain(column.field(index)) for index in range(len(fields))]
    # Without fields there is no array to take the length from.
    if not arrays:
        return pa.nulls(len(column), column.type)
    return pa.StructArray.from_arrays(arrays, fields=fields, mask=column.is_null())


def _lists(column: pa.Array) -> pa.Array:
    # Not by a cast: Arrow casts views with null lists to arrays that are not valid.
    kind = plain_type(column.type)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    is_small = pa.types.is_list(kind)
    build = pa.ListArray.from_arrays if is_small else pa.LargeListArray.from_arrays
    offsets = pa.array(ends, pa.int32() if is_small else pa.int64())
    return build(offsets, plain(column.flatten()), type=kind, mask=column.is_null())


def _maps(column: pa.MapArray) -> pa.MapArray:
    ends = column.offsets.to_numpy()
    first, n_pairs = int(ends[0]), int(ends[-1] - ends[0])
    keys, items = (plain(side.slice(first, n_pairs)) for side in (column.keys, column.items))
    offsets = pa.array(ends - first, pa.int32())
    kind = plain_type(column.type)
    return pa.MapArray.from_arrays(offsets, keys, items, type=kind, mask=column.is_null())
