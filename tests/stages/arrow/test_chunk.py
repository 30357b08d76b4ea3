from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from omnitrace_core.errors import MediaMissing, RunError
from stages.arrow.chunk import (
    Fields,
    StateRow,
    has_media,
    sample_structs,
    state_rows,
    with_rows,
    without_inline_data,
)
from stages.arrow.sample_schema import SAMPLE
from tests.stages.chunks import codes_of, errors_of, read_chunk, run_rows, text_row, user


def test_results_and_errors_land_on_their_own_rows(tmp_path: Path) -> None:
    chunk = read_chunk(tmp_path, [text_row("a"), text_row(None), text_row("c"), text_row("d")])
    processed: list[str] = []

    def work(row: StateRow) -> Fields:
        processed.append(row.row_key)
        if row.sample_id == "c":
            raise MediaMissing("c has no file")
        if row.sample_id == "d":
            raise KeyError("d")
        return {"notes": [row.sample_id], "decode_s": 1.0}

    done = run_rows(chunk, "decode_media", work, fields=("notes", "decode_s"))
    assert processed == ["shard.parquet:0", "shard.parquet:2", "shard.parquet:3"]
    assert codes_of(done) == [None, "missing_sample_id", "media_missing", "internal"]
    assert [row["notes"] for row in done.to_pylist()[0]["samples"]] == [["a"], None, None, None]
    again = run_rows(done, "later", lambda row: {"speech_s": 2.0}, fields=("speech_s",))
    assert errors_of(again) == errors_of(done)
    rows = again.to_pylist()[0]["samples"]
    assert [row["speech_s"] for row in rows] == [2.0, None, None, None]
    assert [row["decode_s"] for row in rows] == [1.0, None, None, None]


def test_dropped_fields_are_null(tmp_path: Path) -> None:
    chunk = read_chunk(tmp_path, [text_row("a")])
    noted = run_rows(chunk, "s", lambda row: {"notes": ["x"]}, fields=("notes",))
    dropped = run_rows(noted, "s", lambda row: {}, fields=(), drop=("notes",))
    assert state_rows(dropped)[0].notes == ()


def test_split_or_merged_chunks_are_refused(tmp_path: Path) -> None:
    chunk = read_chunk(tmp_path, [text_row("a"), text_row("b")])
    with pytest.raises(RunError, match="received 2 chunks"):
        sample_structs(pa.concat_tables([chunk, chunk]))
    with pytest.raises(RunError, match="holds 1 samples; 2 were planned"):
        sample_structs(with_rows(chunk, sample_structs(chunk).slice(0, 1)))


def test_whether_samples_have_media(tmp_path: Path) -> None:
    picture = {"type": "image", "data": b"any bytes"}
    nothing = {"sample_id": "n", "messages": None}
    texts = sample_structs(read_chunk(tmp_path, [text_row("a"), nothing])).field("sample")
    mixed = sample_structs(
        read_chunk(tmp_path, [text_row("a"), {"sample_id": "b", "messages": [user(picture)]}])
    ).field("sample")
    assert not has_media(texts)
    assert has_media(mixed)
    assert not has_media(mixed.slice(0, 1))
    assert has_media(mixed.slice(1))


def test_slices_of_a_chunk_keep_their_rows(tmp_path: Path) -> None:
    """Ray may hand over a slice of a larger buffer."""
    chunk = read_chunk(tmp_path, [text_row("a"), text_row("b")])
    sliced = pa.concat_tables([chunk, chunk]).combine_chunks().slice(1, 1)
    assert [row.sample_id for row in state_rows(sliced)] == ["a", "b"]
    noted = run_rows(sliced, "s", lambda row: {"notes": [row.sample_id]}, fields=("notes",))
    assert [row.notes for row in state_rows(noted)] == [("a",), ("b",)]


def test_bytes_of_inline_media_are_dropped() -> None:
    rows = [
        {
            "sample_id": "a",
            "messages": [
                user({"type": "image", "data": b"png"}, {"type": "text", "text": "What?"}),
                user({"type": "image", "uri": "b.png"}),
                user({"type": "video", "frames": [{"uri": "c.png"}, {"data": b"png"}]}),
            ],
        },
        {"sample_id": "none", "messages": None},
        {"sample_id": "b", "messages": [{"role": "user", "content": None}]},
        text_row("c"),
    ]
    table = pa.Table.from_pylist(rows, schema=SAMPLE)
    # A slice, as a chunk in the middle of a shard may be.
    samples = table.to_struct_array().combine_chunks()
    for first in (0, 1):
        stripped = without_inline_data(samples.slice(first)).to_pylist()
        expected = table.slice(first).to_pylist()
        if first == 0:
            frame = expected[0]["messages"][2]["content"][0]["frames"][1]
            for inline in (expected[0]["messages"][0]["content"][0], frame):
                inline |= {"data": None, "uri": "inline"}
        assert stripped == expected
