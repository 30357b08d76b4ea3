"""Columns of every type that writers give to text, bytes and lists hold the same values."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.ingest import ingest
from pipeline.planning.input_shards import list_input, scan_input
from stages.arrow.chunk import sample_structs
from stages.arrow.input_columns import cast_to_sample_structs, schema_problems
from stages.arrow.plain_types import is_plain, plain, plain_type
from stages.arrow.sample_schema import SAMPLE
from stages.read_samples import read_samples
from tests.stages.chunks import codes_of, plan_of

_WORD = {"text": "lamp", "start_s": 0.0, "end_s": 1.0}
_SEGMENT = {"start_s": 0.0, "end_s": 1.0, "text": "The lamp.", "words": [_WORD]}
_PARTS = [
    {"type": "text", "text": "Where is it?", "evidence": True},
    {"type": "image", "uri": "a.png", "options": {"max_pixels": 1000}},
    {"type": "audio", "data": b"RIFF", "segments": [_SEGMENT]},
]
_LABEL = {
    "statement": "It is red.",
    "char_start": 0,
    "char_end": 3,
    "sources": [{"modality": "image", "part_index": 1, "box": [0.0, 0.0, 1.0, 1.0]}],
}
_FULL: dict[str, Any] = {
    "sample_id": "a",
    "messages": [{"role": "user", "content": _PARTS}],
    "response": "It is red.",
    "response_token_ids": [1, 2],
    "reference_answer": "red",
    "options": ["red", "blue"],
    "labels": [_LABEL],
    "metadata": [("source", "lamps")],
}
_ROWS = [
    _FULL,
    {"sample_id": "b", "messages": []},
    {**_FULL, "sample_id": "c", "options": [], "metadata": None, "response": None},
    {**_FULL, "sample_id": "d", "messages": _FULL["messages"] * 2},
]
_PLAIN = pa.Table.from_pylist(_ROWS, schema=SAMPLE)

Change = Callable[[pa.DataType], pa.DataType | None]


def _changed(kind: pa.DataType, change: Change) -> pa.DataType:
    """The type with `change` made at every depth."""
    inner = kind
    if pa.types.is_struct(kind):
        inner = pa.struct([(field.name, _changed(field.type, change)) for field in kind])
    elif pa.types.is_list(kind):
        inner = pa.list_(_changed(kind.value_type, change))
    elif pa.types.is_map(kind):
        inner = pa.map_(_changed(kind.key_type, change), _changed(kind.item_type, change))
    return change(inner) or inner


def _texts(to: pa.DataType) -> Change:
    return lambda kind: to if pa.types.is_string(kind) else None


def _bytes(to: pa.DataType) -> Change:
    return lambda kind: to if pa.types.is_large_binary(kind) else None


def _lists(to: Callable[[pa.DataType], pa.DataType]) -> Change:
    return lambda kind: to(kind.value_type) if pa.types.is_list(kind) else None


_CHANGES: dict[str, Change] = {
    "large text": _texts(pa.large_string()),
    "views of text": _texts(pa.string_view()),
    "text as bytes": _texts(pa.binary()),
    "text as views of bytes": _texts(pa.binary_view()),
    "dictionaries": _texts(pa.dictionary(pa.int32(), pa.string())),
    "dictionaries of large text": _texts(pa.dictionary(pa.int8(), pa.large_string())),
    "bytes": _bytes(pa.binary()),
    "views of bytes": _bytes(pa.binary_view()),
    "dictionaries of bytes": _bytes(pa.dictionary(pa.int32(), pa.large_binary())),
    "large lists": _lists(pa.large_list),
    "views of lists": _lists(pa.list_view),
    "views of large lists": _lists(pa.large_list_view),
}
_ALL = "views of everything"
_CHANGES[_ALL] = lambda kind: next(
    (
        to
        for name in ("views of text", "views of bytes", "views of lists")
        if (to := _CHANGES[name](kind)) is not None
    ),
    None,
)


def _columns(change: Change) -> pa.Table:
    return pa.Table.from_pylist(
        _ROWS, schema=pa.schema([(field.name, _changed(field.type, change)) for field in SAMPLE])
    )


def _file_with_types_of(table: pa.Table, path: Path) -> None:
    """The plain rows, as a file whose columns readers give the types of `table`.

    Arrow itself cannot write views inside of lists; other writers can.
    """
    schema = base64.b64encode(table.schema.serialize().to_pybytes())
    written = _PLAIN.replace_schema_metadata({b"ARROW:schema": schema})
    pq.write_table(written, path, store_schema=False, row_group_size=3)


@pytest.mark.parametrize("name", _CHANGES)
def test_values_of_every_type_stay_the_same(name: str) -> None:
    table = _columns(_CHANGES[name])
    assert table.schema != SAMPLE
    assert schema_problems(table.schema) == []
    for start, n_rows in ((0, 4), (1, 3), (2, 1), (4, 0)):
        structs, misfits = cast_to_sample_structs(table.slice(start, n_rows))
        structs.validate(full=True)
        assert misfits == {}
        assert structs.to_pylist() == _PLAIN.slice(start, n_rows).to_pylist()


@pytest.mark.parametrize("name", _CHANGES)
def test_files_of_every_type_are_planned_and_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = _columns(_CHANGES[name])
    _file_with_types_of(table, path)
    (scan,) = scan_input(list_input(str(path)))
    assert (scan.n_rows, scan.duplicates) == (len(_ROWS), ())
    chunk = read_samples(plan_of(path, 3, 1))
    ids = [row["sample"]["sample_id"] for row in sample_structs(chunk).to_pylist()]
    assert ids == ["b", "c", "d"]
    assert codes_of(chunk)[1:] == [None, None]


@pytest.mark.parametrize("name", _CHANGES)
def test_files_of_every_type_are_ingested(name: str, tmp_path: Path) -> None:
    plain_file, other_file = tmp_path / "plain.parquet", tmp_path / "other.parquet"
    pq.write_table(_PLAIN, plain_file)
    _file_with_types_of(_columns(_CHANGES[name]), other_file)
    shards = [
        ingest(str(file), str(tmp_path / file.stem), media_root="/media").shards[0]
        for file in (plain_file, other_file)
    ]
    first, second = (pq.read_table(shard).to_pylist() for shard in shards)
    assert first == second
    assert "ingest_error" not in str(second)


def _uuid_columns() -> dict[str, pa.Array]:
    """Columns of UUIDs in every place of a sample that holds text."""
    ids = [uuid.UUID(int=number) for number in range(3)]
    uuids = pa.array(ids, pa.uuid())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), uuids)
    parts = pa.StructArray.from_arrays([pa.array(["text"] * 3), uuids], ["type", "text"])
    content = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), parts)
    messages = pa.StructArray.from_arrays([pa.array(["user"] * 3), content], ["role", "content"])
    return {
        "sample_id": uuids,
        "messages": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), messages),
        "response": pa.array([ids[0], None, ids[2]], pa.uuid()),
        "reference_answer": uuids,
        "options": lists,
        "metadata": pa.MapArray.from_arrays([0, 1, 2, 3], ["k"] * 3, uuids),
    }


def test_uuids_become_their_text_in_every_column(tmp_path: Path) -> None:
    table = pa.table(_uuid_columns())
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    assert isinstance(pq.read_schema(path).field("sample_id").type, pa.UuidType)
    (scan,) = scan_input(list_input(str(path)))
    assert scan.n_rows == 3
    structs, misfits = cast_to_sample_structs(pq.read_table(path))
    assert misfits == {}
    last = "00000000-0000-0000-0000-000000000002"
    row = structs.to_pylist()[2]
    assert (row["sample_id"], row["response"], row["reference_answer"]) == (last, last, last)
    assert row["messages"][0]["content"][0]["text"] == last
    assert (row["options"], row["metadata"]) == ([last], [("k", last)])
    assert structs.to_pylist()[1]["response"] is None
    (shard,) = ingest(str(path), str(tmp_path / "out")).shards
    ingested = pq.read_table(shard).to_pylist()[2]
    assert ingested["messages"][0]["content"][0]["text"] == last
    assert (ingested["sample_id"], ingested["options"], ingested["response"]) == (
        last,
        [last],
        last,
    )


def test_repeated_uuids_are_found(tmp_path: Path) -> None:
    columns = _uuid_columns()
    columns["sample_id"] = columns["sample_id"].take(pa.array([0, 1, 0]))
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (scan,) = scan_input(list_input(str(tmp_path)))
    assert [duplicate.row for duplicate in scan.duplicates] == [2]


def test_lists_of_a_fixed_size() -> None:
    values = pa.array([["a", "b"], None, ["c", None]], pa.list_(pa.string_view(), 2))
    assert plain(values).to_pylist() == values.to_pylist()
    assert plain(values.slice(1)).to_pylist() == values.to_pylist()[1:]
    assert plain_type(values.type) == pa.large_list(pa.large_string())


def test_extensions_are_what_they_store() -> None:
    stored = pa.array(["{}", None], pa.string_view())
    texts = pa.ExtensionArray.from_storage(pa.json_(pa.string_view()), stored)
    assert plain(texts).to_pylist() == ["{}", None]
    assert plain_type(texts.type) == pa.large_string()


def test_plain_columns_are_not_copied() -> None:
    for column in _PLAIN.columns:
        assert is_plain(column.type)
        chunk = column.chunk(0)
        assert plain(chunk) is chunk


def test_values_that_do_not_fit_are_errors_of_their_rows(tmp_path: Path) -> None:
    columns = {
        "sample_id": pa.array(["a", "b"], pa.string_view()),
        "messages": pa.array([[], []], SAMPLE.field("messages").type),
        "response": pa.array([b"fine", b"\xff"], pa.binary_view()),
    }
    structs, misfits = cast_to_sample_structs(pa.table(columns))
    assert list(misfits) == [1]
    assert "column response holds a value that does not fit it" in str(misfits[1])
    assert structs.to_pylist()[0]["response"] == "fine"
