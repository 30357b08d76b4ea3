"""Arrow columns decoded at once, against `to_pylist`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stages.arrow.python_values import python_values

PART = pa.struct([("text", pa.string()), ("data", pa.large_binary()), ("n", pa.int32())])
ROW = pa.struct(
    [
        ("parts", pa.list_(PART)),
        ("metadata", pa.map_(pa.string(), pa.string())),
        ("deep", pa.list_(pa.list_(pa.float64()))),
        ("always_null", pa.list_(PART)),
    ]
)
VALUES: list[dict[str, Any] | None] = [
    {"parts": [{"text": "a", "data": b"12", "n": 1}, None], "deep": [[1.0, None], None, []]},
    None,
    {"parts": [], "metadata": [("k", "v"), ("none", None)], "deep": []},
    {"parts": None, "metadata": [], "deep": None},
    {"parts": [{"text": None, "data": b"", "n": None}], "metadata": [("k", "w")], "deep": [[]]},
    {"parts": [{"text": "b", "data": None, "n": 7}] * 3, "metadata": None, "deep": [[2.0]]},
]


def as_pylist(value: Any) -> Any:
    """A value of `python_values` as `to_pylist` would give it."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [as_pylist(item) for item in value]
    if isinstance(value, dict):
        return {key: as_pylist(item) for key, item in value.items()}
    return value


def expected(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """A row of `to_pylist` with its map as a dict."""
    if row is None or row["metadata"] is None:
        return row
    metadata = {key: value for key, value in row["metadata"] if value is not None}
    return {**row, "metadata": metadata}


@pytest.mark.parametrize("start", range(len(VALUES) + 1))
@pytest.mark.parametrize("end", range(len(VALUES) + 1))
def test_every_slice_has_the_values_of_to_pylist(start: int, end: int) -> None:
    column = pa.array(VALUES, ROW).slice(start, max(end - start, 0))
    found = [as_pylist(row) for row in python_values(column)]
    assert found == [expected(row) for row in column.to_pylist()]


def test_values_below_a_null_struct_are_not_seen() -> None:
    texts = pa.array(["a", "b", "c"])
    rows = pa.StructArray.from_arrays([texts], ["text"], mask=pa.array([False, True, False]))
    assert python_values(rows) == [{"text": "a"}, None, {"text": "c"}]
    lists = pa.ListArray.from_arrays(pa.array([0, 1, None, 3], pa.int32()), rows)
    assert python_values(lists) == lists.to_pylist()


def test_binary_values_are_views_of_arrows_memory() -> None:
    column = pa.array([b"abc", None, b"defg"], pa.large_binary())
    first, none, last = python_values(column)
    assert (bytes(first), none, bytes(last)) == (b"abc", None, b"defg")
    start = column.buffers()[2].address
    assert pa.py_buffer(last).address == start + 3
