from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.errors import NodeFault, RunError
from stages.arrow.chunk import state_rows
from stages.arrow.input_columns import cast_to_sample_structs, schema_problems
from stages.arrow.sample_schema import MESSAGE, SAMPLE
from stages.arrow.state_schema import STATE, chunk_schema
from stages.read_samples import read_samples
from tests.lost_mount import lost_mount
from tests.stages.chunks import (
    Row,
    codes_of,
    error_of,
    plan_of,
    read_chunk,
    text_row,
    write_shard,
)
from tests.stages.damaged_files import damage, full_row


def test_every_row_comes_once_with_its_key(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.parquet", [text_row(f"s{i}") for i in range(10)], 3)
    for first, n in ((0, 10), (0, 2), (2, 5), (9, 1), (3, 3)):
        chunk = read_samples(plan_of(shard, n, first))
        assert chunk.schema == chunk_schema(STATE)
        rows = state_rows(chunk)
        assert [row.row_key for row in rows] == [f"a.parquet:{i}" for i in range(first, first + n)]
        assert [row.sample.sample_id for row in rows] == [f"s{i}" for i in range(first, first + n)]
        assert codes_of(chunk) == [None] * n


@pytest.mark.parametrize("numbers", [[0], [3], [1, 2], [0, 2, 3, 9], list(range(10))])
def test_single_rows_are_read_from_their_row_groups(tmp_path: Path, numbers: list[int]) -> None:
    shard = write_shard(tmp_path / "a.parquet", [text_row(f"s{i}") for i in range(10)], 3)
    plan = plan_of(shard, len(numbers), numbers[0], numbers, row_3="a.parquet:0")
    chunk = read_samples(plan)
    assert chunk.column("rows").to_pylist() == [numbers]
    rows = state_rows(chunk)
    assert [row.row_key for row in rows] == [f"a.parquet:{number}" for number in numbers]
    assert [row.sample_id for row in rows] == [f"s{number}" for number in numbers]
    assert codes_of(chunk) == ["duplicate_sample_id" if n == 3 else None for n in numbers]


def test_missing_and_repeated_ids_are_errors(tmp_path: Path) -> None:
    rows = [text_row("a"), text_row(None), text_row(""), text_row("a"), text_row("b")]
    shard = write_shard(tmp_path / "s.parquet", rows)
    chunk = read_samples(plan_of(shard, 5, row_3="s.parquet:0"))
    assert codes_of(chunk) == [
        None,
        "missing_sample_id",
        "missing_sample_id",
        "duplicate_sample_id",
        None,
    ]
    error = error_of(chunk, 3)
    assert error["stage"] == "read"
    assert "'a' was already seen at s.parquet:0" in error["message"]


def test_rows_that_are_not_samples_are_errors(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"sample_id": "none", "messages": None},
        {"sample_id": "empty", "messages": []},
        text_row("odd") | {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
        text_row("fine"),
    ]
    chunk = read_chunk(tmp_path, rows)
    assert codes_of(chunk) == ["invalid_sample", "invalid_sample", "unknown_part_type", None]


def test_shard_that_shrank_is_refused(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.parquet", [text_row("a")])
    with pytest.raises(RunError, match=r"has 1 rows and not the 5 of the plan"):
        read_samples(plan_of(shard, 5))


def test_optional_columns_may_be_missing_and_others_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    messages = [[{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]]
    pq.write_table(pa.table({"x": [1], "messages": messages, "sample_id": ["a"]}), path)
    assert schema_problems(pq.read_schema(path)) == []
    (row,) = state_rows(read_samples(plan_of(path, 1)))
    assert row.sample.parts[0].text == "Why?"
    assert row.sample.response is None


def test_value_that_does_not_fit_costs_one_row() -> None:
    rows = pa.table(
        {
            "sample_id": ["a", "b", "c"],
            "response_token_ids": pa.array([[1], [2**40], None], pa.list_(pa.int64())),
        }
    )
    samples, misfits = cast_to_sample_structs(rows)
    assert samples.field("sample_id").to_pylist() == ["a", "b", "c"]
    assert samples.field("response_token_ids").to_pylist() == [[1], None, None]
    assert list(misfits) == [1]
    assert "column response_token_ids" in str(misfits[1])


def test_text_that_is_not_utf_8_costs_its_row(tmp_path: Path) -> None:
    """Some writers store Latin-1, and Parquet's readers do not check."""
    rows = pa.Table.from_pylist([text_row(name) for name in "abc"], SAMPLE)
    ids = pa.array([b"a", b"caf\xe9", b"c"], pa.binary()).view(pa.string())
    pq.write_table(rows.set_column(0, "sample_id", ids), tmp_path / "shard.parquet")
    chunk = read_samples(plan_of(tmp_path / "shard.parquet", 3))
    assert codes_of(chunk) == [None, "invalid_sample", None]
    assert "column sample_id holds a value that does not fit it" in error_of(chunk, 1)["message"]
    assert [row["sample"]["sample_id"] for row in chunk.to_pylist()[0]["samples"]] == [
        "a",
        None,
        "c",
    ]


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (pa.schema([("id", pa.string())]), "column sample_id is missing"),
        (pa.schema([("sample_id", pa.string())]), "column messages is missing"),
        (SAMPLE.set(1, pa.field("messages", pa.string())), "messages is string"),
        (
            SAMPLE.set(1, pa.field("messages", pa.list_(pa.struct([("role", pa.string())])))),
            "messages.content is missing",
        ),
        (
            SAMPLE.set(
                1,
                pa.field(
                    "messages",
                    pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
                ),
            ),
            "messages.content is string",
        ),
        (
            SAMPLE.set(7, pa.field("metadata", pa.struct([("a", pa.string())]))),
            "metadata is struct",
        ),
    ],
)
def test_wrong_schemas_are_named(schema: pa.Schema, problem: str) -> None:
    assert any(problem in said for said in schema_problems(schema))


def test_unknown_part_fields_are_not_dropped_in_silence() -> None:
    part = pa.struct([("type", pa.string()), ("image_url", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
    problems = schema_problems(SAMPLE.set(1, pa.field("messages", pa.list_(message))))
    assert problems == ["messages.content.image_url is not a known field"]


def test_our_own_and_wider_types_are_fine() -> None:
    assert schema_problems(SAMPLE) == []
    wider = pa.schema(
        [("sample_id", pa.large_string()), ("messages", pa.large_list(MESSAGE)), ("y", pa.null())]
    )
    assert schema_problems(wider) == []


@pytest.mark.parametrize("column", ["sample_id", "messages"])
@pytest.mark.parametrize(
    "kind",
    [pa.string_view(), pa.uuid(), pa.dictionary(pa.int32(), pa.string()), pa.binary()],
    ids=str,
)
def test_damaged_row_groups_with_ids_of_any_type(
    kind: pa.DataType, column: str, tmp_path: Path
) -> None:
    values = [uuid.UUID(int=i) for i in range(6)]
    table = pa.Table.from_pylist([full_row(str(value)) for value in values], SAMPLE)
    if kind == pa.uuid():
        ids = pa.array([value.bytes for value in values], kind)
    elif pa.types.is_dictionary(kind):
        ids = table["sample_id"].dictionary_encode()
    else:
        ids = table["sample_id"].cast(kind)
    path = tmp_path / "a.parquet"
    pq.write_table(table.set_column(0, "sample_id", ids), path, row_group_size=2)
    damage(path, column, 1)
    chunk = read_samples(plan_of(path, 5, 1))
    assert codes_of(chunk) == [None, "input_damaged", "input_damaged", None, None]
    known = [1, 4, 5] if column == "sample_id" else [1, 2, 3, 4, 5]
    found = [row["sample"]["sample_id"] for row in chunk.to_pylist()[0]["samples"]]
    assert [value for value in found if value is not None] == [str(values[i]) for i in known]


def test_shard_on_a_lost_mount_is_the_machines(tmp_path: Path) -> None:
    plan = plan_of(write_shard(tmp_path / "a.parquet", [text_row("a")]), 1)
    match = r"stage read, chunk .*does not answer.*not connected; mount it again"
    with lost_mount(tmp_path), pytest.raises(NodeFault, match=match):
        read_samples(plan)
