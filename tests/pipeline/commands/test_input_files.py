"""Finding input files and reading their records: JSON, JSON Lines, Parquet."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.errors import ConfigError, InputSchemaError
from omnitrace_core.samples.parse import to_sample
from pipeline.commands import json_records
from pipeline.commands.ingest import ingest
from tests.pipeline.commands.input_samples import ids, question, read, write_jsonl
from tests.stages.damaged_files import damage, full_row, write_groups


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"id": 1}, {"id": 2}]', ["1", "2"]),
        ('  {"id": 1}\n', ["1"]),
        ('{"id": 1}\n{"id": 2}\n\n{"id": 3}', ["1", "2", "3"]),
        ('\ufeff[ {"id": "\u2028"} ,\r\n 12, -3.5e2 ]', ["\u2028", None, None]),
    ],
)
@pytest.mark.parametrize("read_chars", [1, 7, 1 << 16])
def test_json_is_read_the_same_in_pieces_of_any_size(
    text: str, expected: list[str], read_chars: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(json_records, "READ_CHARS", read_chars)
    (tmp_path / "in.json").write_text(text, encoding="utf-8")
    ingest(str(tmp_path / "in.json"), str(tmp_path / "out"))
    assert ids(tmp_path / "out") == expected


def test_json_values_longer_than_a_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(json_records, "READ_CHARS", 10)
    long = 'quote " backslash \\ emoji \U0001f600 newline \n' * 50
    objects = [{"id": i, "question": long, "n": i} for i in range(3)]
    (tmp_path / "in.json").write_text(json.dumps(objects, indent=1))
    ingest(str(tmp_path / "in.json"), str(tmp_path / "out"))
    assert [to_sample(row).parts[0].text for row in read(tmp_path / "out")] == [long] * 3


def test_a_line_ends_at_a_newline_only(tmp_path: Path) -> None:
    text = '{"id": "a\u2028b\x85c"}\r\n\n{"id": "d"}'
    (tmp_path / "in.jsonl").write_bytes(text.encode())
    ingest(str(tmp_path / "in.jsonl"), str(tmp_path / "out"))
    assert ids(tmp_path / "out") == ["a\u2028b\x85c", "d"]


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("in.json", '[{"id": 1},\n{"id": 2,}\n]', r"in.json, line 2: not valid JSON"),
        ("in.json", '[{"id": 1},\n{"id": 2}\n', r"in.json, line 3: not valid JSON"),
        ("in.json", '[{"id": 1}\n\n{"id": 2}]', r"line 3: .*expected a comma"),
        ("in.json", '[{"id": 1}]\n]', r"line 2: .*more text after the end"),
        ("in.json", '[\n{"id": "open', r"line 2: .*Unterminated string"),
        ("in.json", "[\n" + "[" * 100_000, r"line 2: .*recursion"),
        ("in.json", b'[\n{"id": "\xff"}]', r"line 1 or later: .*utf-8"),
        ("in.jsonl", '{"id": 1}\n{"id": 2\n', r"in.jsonl, line 2: not valid JSON"),
        ("in.jsonl", b'{"id": 1}\n{"id": "\xff"}\n', r"in.jsonl, line 2: .*utf-8"),
        ("in.jsonl", '{"id": ' + "9" * 5_000 + "}", r"line 1: "),
        ("in.json", "", "without a single record"),
        ("in.jsonl", "\n\n", "without a single record"),
        ("in.json", "[]", "without a single record"),
    ],
)
@pytest.mark.parametrize("read_chars", [3, 1 << 16])
def test_unreadable_json_names_file_and_line(
    name: str, text: str | bytes, match: str, read_chars: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(json_records, "READ_CHARS", read_chars)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputSchemaError, match=match):
        ingest(str(tmp_path / name), str(tmp_path / "out"), shard_rows=1)
    assert not list(tmp_path.glob("out/*"))


def test_the_rest_of_a_file_is_not_read_after_a_bad_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "READ_CHARS", 1_000)
    stream = io.StringIO('[{"id": oops},' + '{"id": 1},' * 100_000 + "]")
    scanner = json_records.JsonScanner(stream, "in.json")
    assert scanner.peek() == "["
    with pytest.raises(InputSchemaError, match=r"line 1: .*Expecting value"):
        list(scanner.list_items())
    assert stream.tell() <= 2_000


def test_hub_style_parquet(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(
        [
            {
                "id": 3,
                "messages": [
                    {"role": "user", "content": [{"type": "image", "text": None, "image": "i.png"},
                                                 {"type": "text", "text": "Hm?", "image": None}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
                ],
                "score": 0.5,
            }
        ]
    )  # fmt: skip
    pq.write_table(table, tmp_path / "chat.parquet")
    pq.write_table(
        pa.Table.from_pylist([{"id": "q", "question": [{"text": "Hm?"}, {"audio": "a.wav"}]}]),
        tmp_path / "reference.parquet",
    )
    assert ingest(str(tmp_path), str(tmp_path / "out")).files_read == 2
    chat, reference = (to_sample(row) for row in read(tmp_path / "out"))
    assert (chat.sample_id, chat.response, chat.metadata) == ("3", "A cat.", {"score": "0.5"})
    assert [part.uri or part.text for part in chat.parts] == [str(tmp_path / "i.png"), "Hm?"]
    assert [part.uri or part.text for part in reference.parts] == ["Hm?", str(tmp_path / "a.wav")]


def test_our_own_shards_pass_unchanged(tmp_path: Path) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    source = write_jsonl(tmp_path / "in.jsonl", question(1), question(2, video="v.mp4", fps=2), 7)
    ingest(source, first)
    ingest(first, second)
    assert read(first) == read(second)


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"id": ["a"], "text": ["b"]}, r"columns are \[id: string, text: string\]; expected"),
        ({"id": ["a"], "messages": ["b"]}, "messages: string"),
        ({"id": ["a"], "messages": [[1]]}, "messages: list<"),
        ({"id": ["a"], "question": [1.0]}, "question: double"),
        ({"question": ["What?"]}, "sample_id or id or custom_id"),
    ],
)
def test_parquet_of_another_schema(columns: dict[str, Any], match: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", question(1))
    pq.write_table(pa.table(columns), tmp_path / "z.parquet")
    with pytest.raises(InputSchemaError, match=match):
        ingest(str(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputSchemaError, match=r"a\.parquet: cannot be read as parquet"):
        ingest(str(tmp_path), str(tmp_path / "out"))


def test_damaged_row_group_of_a_source_is_named(tmp_path: Path) -> None:
    source = write_groups(tmp_path / "a.parquet", [full_row(str(i)) for i in range(6)], 2)
    damage(source, "messages", 1)
    match = r"a\.parquet cannot be decoded: row group 1 \(rows 2 to 3\): .*; restore the file"
    with pytest.raises(InputSchemaError, match=match):
        ingest(str(source), str(tmp_path / "out"))
    assert list((tmp_path / "out").glob("*")) == []


def test_directories_globs_and_links(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write_jsonl(tmp_path / "in" / "b.jsonl", question("b"))
    write_jsonl(tmp_path / "in" / "a.json", question("a"))
    write_jsonl(tmp_path / "in" / ".hidden.json", question("hidden"))
    write_jsonl(tmp_path / "in" / "deep" / "d.jsonl", question("d", image="d.png"))
    write_jsonl(tmp_path / "linked", question("c"))
    (tmp_path / "in" / "c.jsonl").symlink_to(tmp_path / "linked")
    (tmp_path / "in" / "notes.txt").write_text("not input")
    report = ingest(str(tmp_path / "in"), str(tmp_path / "flat"))
    assert (report.files_read, ids(tmp_path / "flat")) == (3, ["a", "b", "c"])
    ingest(f"{tmp_path}/in/**/*.jsonl", str(tmp_path / "deep"))
    assert sorted(map(str, ids(tmp_path / "deep"))) == ["b", "c", "d"]
    row = next(row for row in read(tmp_path / "deep") if row["sample_id"] == "d")
    # Resolved against the file it stands in, not against the glob.
    assert to_sample(row).parts[0].uri == str(tmp_path / "in" / "deep" / "d.png")


@pytest.mark.parametrize("name", ["missing", "missing/*.jsonl", "notes.txt", "empty"])
def test_nothing_to_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputSchemaError, match=r"found .*; give a \.json"):
        ingest(str(tmp_path / name), str(tmp_path / "out"))


def test_unknown_protocol(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file system"):
        ingest("gopher://host/in.jsonl", str(tmp_path))
