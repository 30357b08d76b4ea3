"""`omnitrace ingest`: any accepted input becomes Parquet shards that read back as samples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.errors import (
    ConfigError,
    DamagedFile,
    InputSchemaError,
    InvalidSample,
    MissingSampleId,
)
from omnitrace_core.records import Frame
from omnitrace_core.samples.fitting import SAMPLE_SHAPE, Shape
from omnitrace_core.samples.forms import normalise
from omnitrace_core.samples.parse import parse_any, to_sample
from pipeline.commands import ingest as ingest_module
from pipeline.commands.ingest import ingest
from stages.arrow.parquet_reader import ParquetReader
from stages.arrow.sample_schema import SAMPLE
from stages.arrow.table_schema import SCHEMA_VERSION
from tests.pipeline.commands.input_samples import ids, question, read, write_jsonl
from tests.stages.damaged_files import column_chunks, overwrite


@pytest.fixture
def memory() -> Iterator[str]:
    root = "memory://ingest-test"
    yield root
    fs = fsspec.filesystem("memory")
    if fs.exists("/ingest-test"):
        fs.rm("/ingest-test", recursive=True)


def test_rows_mirror_the_arrow_schema() -> None:
    def shape(kind: pa.DataType) -> Shape:
        if pa.types.is_map(kind):
            return "map"
        if pa.types.is_list(kind):
            return [shape(kind.value_type)]
        if pa.types.is_struct(kind):
            return {field.name: shape(field.type) for field in kind}
        leaves = {
            pa.string(): "text", pa.bool_(): "bool", pa.float64(): "float", pa.float32(): "float",
            pa.large_binary(): "bytes", pa.int32(): "int32", pa.int64(): "int64",
        }  # fmt: skip
        return leaves[kind]

    assert {field.name: shape(field.type) for field in SAMPLE} == SAMPLE_SHAPE


def test_real_samples(shared_data: Path, tmp_path: Path) -> None:
    report = ingest(str(shared_data / "samples.json"), str(tmp_path / "out"), shard_rows=2)
    assert (report.files_read, report.rows) == (1, 5)
    names = [f"shard-0000{i}.parquet" for i in range(3)]
    assert report.shards == tuple(str(tmp_path / "out" / name) for name in names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for shard in report.shards:
        schema = pq.read_schema(shard)
        assert schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
        assert schema.equals(SAMPLE)
        assert pq.ParquetFile(shard).metadata.row_group(0).column(0).compression == "ZSTD"
    samples = [to_sample(row) for row in read(tmp_path / "out")]
    originals = json.loads((shared_data / "samples.json").read_text())
    assert samples == [parse_any(obj, str(shared_data)) for obj in originals]
    media = [part.uri for sample in samples for part in sample.parts if part.type != "text"]
    assert len(media) == 8
    assert all(Path(uri).is_file() for uri in media)


ADVERSARIAL: tuple[dict[str, Any], ...] = (
    {},
    {"id": 5},
    {"id": ["x"], "messages": {"role": "user"}},
    {"id": "lone \ud800", "question": "a \udfff b", "k\ud800": "v"},
    {"id": 1, "messages": [{"role": "user", "content": None}, None, 7, [[]]]},
    {"id": 2, "messages": [{"role": {}, "content": [{"type": ["image"]}, [], 5, {"text": 1}]}]},
    {"id": 3, "question": [{"video": "v", "fps": "x", "nframes": 2**70, "min_pixels": 10**400}]},
    {"id": 4, "question": [{"image": [b"1", {"bytes": b"2"}, None, "data:;base64,@"]}]},
    {"id": 5, "question": [{"audio": "a", "segments": [None, 5, {"start_s": "0", "words": 1}]}]},
    {"id": 6, "question": "q", "labels": [{"sources": [{"box": ["a"], "part_index": 1.5}]}, 1]},
    {"id": 7, "question": "q", "response_token_ids": [1, None, "2", 2**33], "options": [1, "a"]},
    {"id": 8, "question": "q", "metadata": {"a": float("nan"), "b": None, "c": [{1}], 3: b"x"}},
    {
        "id": 9,
        "question": "q",
        "answer": {"a": [1]},
        "when": __import__("datetime").date(2024, 1, 2),
    },
)


@pytest.mark.parametrize("obj", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_every_row_can_be_stored_and_checked(obj: dict[str, Any]) -> None:
    row = normalise(obj)
    stored = pa.Table.from_pylist([row], schema=SAMPLE).to_pylist()[0]
    results = []
    for version in (row, stored):
        try:
            results.append(repr(to_sample(version)))
        except InvalidSample as exc:
            results.append(str(exc))
    assert results[0] == results[1]
    assert results[0].startswith("sample ") or obj["id"] == 9


def test_bad_records_become_rows_that_say_why(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", question("a"), ["no"], 7, None, {}, question("b"))
    assert ingest(source, str(tmp_path / "out")).rows == 6
    rows = read(tmp_path / "out")
    assert [row["sample_id"] for row in rows] == ["a", None, None, None, None, "b"]
    for row, value in zip(rows[1:4], (r"\['no'\]", "7", "None"), strict=True):
        assert row["messages"] == []
        with pytest.raises(InvalidSample, match=f"line .*the record is {value}, not an object"):
            to_sample(row)
    with pytest.raises(MissingSampleId):
        to_sample(rows[4])


def test_object_store_in_and_out(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    for name in ("a", "b"):
        line = json.dumps(question(name, image=f"{name}.png"))
        fs.pipe_file(f"/ingest-test/in/{name}.jsonl", line.encode())
    report = ingest(f"{memory}/in/*.jsonl", f"{memory}/out", shard_rows=1)
    assert report.shards == tuple(f"{memory}/out/shard-0000{i}.parquet" for i in range(2))
    rows = []
    for shard in report.shards:
        with fsspec.open(shard) as handle:
            rows += pq.read_table(handle).to_pylist()
    uris = [to_sample(row).parts[0].uri for row in rows]
    # fsspec spells the memory store's paths with a leading slash.
    assert [uri.replace(":///", "://") for uri in uris] == [f"{memory}/in/{n}.png" for n in "ab"]
    with fsspec.open(uris[0], "wb") as handle:
        handle.write(b"x")
    assert fs.cat_file("/ingest-test/in/a.png") == b"x"
    with pytest.raises(ConfigError, match="2 shard"):
        ingest(f"{memory}/in/*.jsonl", f"{memory}/out")


def test_media_root(tmp_path: Path, monkeypatch: Any) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", question(1, image="i.png"))
    ingest(source, str(tmp_path / "url"), media_root="s3://bucket/media/")
    assert to_sample(read(tmp_path / "url")[0]).parts[0].uri == "s3://bucket/media/i.png"
    monkeypatch.chdir(tmp_path)
    ingest("in.jsonl", "local", media_root="media")
    assert to_sample(read(tmp_path / "local")[0]).parts[0].uri == str(tmp_path / "media" / "i.png")


def test_inline_media(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(b"image bytes")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    blocks = [
        {"image": ["i.png", "gone.png", "folder.png", "https://h/i.png"]},
        {"image": f"file://{tmp_path}/i.png", "audio": "pipe.wav"},
    ]
    source = write_jsonl(tmp_path / "in.jsonl", {"id": 1, "question": blocks})
    ingest(source, str(tmp_path / "out"), inline_media=True)
    found = [(part.uri, part.data) for part in to_sample(read(tmp_path / "out")[0]).parts]
    assert found == [
        ("", b"image bytes"),
        (str(tmp_path / "gone.png"), None),
        (str(tmp_path / "folder.png"), None),
        ("https://h/i.png", None),
        ("", b"image bytes"),
        (str(tmp_path / "pipe.wav"), None),
    ]


def test_inline_frames(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(ingest_module, "MAX_SHARD_BYTES", 20)
    (tmp_path / "i.png").write_bytes(b"image bytes")
    block = {"video": ["i.png", "gone.png"], "fps": 2}
    objects = [{"id": i, "question": [block, "What?"]} for i in range(3)]
    source = write_jsonl(tmp_path / "in.jsonl", *objects)
    report = ingest(source, str(tmp_path / "out"), inline_media=True)
    assert [pq.read_metadata(shard).num_rows for shard in report.shards] == [2, 1]
    part = to_sample(read(tmp_path / "out")[0]).parts[0]
    assert part.frames == (Frame(data=b"image bytes"), Frame(str(tmp_path / "gone.png")))
    assert part.options.fps == 2


def test_shards_of_much_inline_media_are_closed_early(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(ingest_module, "MAX_SHARD_BYTES", 20)
    (tmp_path / "i.png").write_bytes(b"0123456789")
    objects = [question(i, image="i.png") for i in range(5)]
    source = write_jsonl(tmp_path / "in.jsonl", *objects)
    report = ingest(source, str(tmp_path / "out"), inline_media=True)
    assert [pq.read_metadata(shard).num_rows for shard in report.shards] == [2, 2, 1]
    assert ids(tmp_path / "out") == [str(i) for i in range(5)]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *(question(i) for i in range(200)))
    shards = []
    for name in ("a", "b"):
        report = ingest(source, str(tmp_path / name), shard_rows=150)
        shards.append([Path(shard).read_bytes() for shard in report.shards])
    assert shards[0] == shards[1]
    assert [len(pq.read_table(tmp_path / "a" / f"shard-0000{i}.parquet")) for i in (0, 1)] == [
        150,
        50,
    ]
    assert pq.read_metadata(tmp_path / "a" / "shard-00000.parquet").num_row_groups == 3


def test_one_changed_bit_of_inline_media_is_found(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(b"the bytes of a picture")
    source = write_jsonl(tmp_path / "in.jsonl", *(question(i, image="i.png") for i in range(70)))
    (shard,) = map(Path, ingest(source, str(tmp_path / "out"), inline_media=True).shards)
    leaf = "messages.list.element.content.list.element.data"
    (chunk,) = column_chunks(shard, leaf, 1)
    place = shard.read_bytes().index(b"a picture", chunk.start)
    overwrite(shard, place, b"A picture")
    with shard.open("rb") as file, ParquetReader(file) as reader:
        assert len(reader.read(reader.groups[0])) == 64
        with pytest.raises(DamagedFile, match="CRC checksum"):
            reader.read(reader.groups[1])


def test_existing_shards_are_kept_unless_overwritten(tmp_path: Path) -> None:
    dest = str(tmp_path / "out")
    ingest(write_jsonl(tmp_path / "a.jsonl", *(question(i) for i in range(3))), dest, shard_rows=1)
    source = write_jsonl(tmp_path / "b.jsonl", question("new"))
    with pytest.raises(ConfigError, match=r"has 3 shard\(s\) already.*overwrite"):
        ingest(source, dest)
    assert ids(dest) == ["0", "1", "2"]
    assert ingest(source, dest, overwrite=True).rows == 1
    assert ids(dest) == ["new"]


def test_overwrite_keeps_the_old_shards_for_an_input_that_cannot_be_read(tmp_path: Path) -> None:
    dest = str(tmp_path / "out")
    ingest(write_jsonl(tmp_path / "a.jsonl", question("old")), dest)
    (tmp_path / "b.jsonl").write_text("{oops")
    with pytest.raises(InputSchemaError):
        ingest(str(tmp_path / "b.jsonl"), dest, overwrite=True)
    assert ids(dest) == ["old"]


def test_the_input_and_files_are_not_overwritten(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", question("a"))
    ingest(source, str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="holds the input"):
        ingest(str(tmp_path / "out"), str(tmp_path / "out"), overwrite=True)
    assert ids(tmp_path / "out") == ["a"]
    with pytest.raises(ConfigError, match="is a file"):
        ingest(source, source)
    with pytest.raises(ConfigError, match="shard_rows is 0"):
        ingest(source, str(tmp_path / "other"), shard_rows=0)


def test_no_more_than_a_shard_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *(question(i) for i in range(6)))
    n_read, read_before_writes = 0, []
    write_table = pq.write_table

    def counted_normalise(*args: Any) -> Any:
        nonlocal n_read
        n_read += 1
        return normalise(*args)

    def recorded_write(*args: Any, **options: Any) -> None:
        read_before_writes.append(n_read)
        write_table(*args, **options)

    monkeypatch.setattr(ingest_module, "normalise", counted_normalise)
    monkeypatch.setattr(pq, "write_table", recorded_write)
    ingest(source, str(tmp_path / "out"), shard_rows=2)
    assert read_before_writes == [2, 4, 6]
