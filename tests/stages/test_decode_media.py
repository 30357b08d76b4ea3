"""The stages decode_media and chunk_audio on real files."""

from __future__ import annotations

import io
import os
import wave
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from omnitrace_core.decoded_media import DecodedImage
from omnitrace_core.media import SharedMedia
from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, UnitOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Sample
from stages.arrow.chunk import INLINE_URI, sample_structs, state_rows, with_plain_addresses
from stages.arrow.sample_schema import PART
from stages.chunk_speech import ChunkSpeech
from stages.decode_media import DecodeMedia
from stages.read_samples import read_samples
from tests.core.media.isolation.decoding_children import CLOCKED
from tests.stages.chunks import (
    Killed,
    Row,
    codes_of,
    error_of,
    errors_of,
    plan_of,
    read_chunk,
    user,
    write_shard,
)
from tests.stages.made_traces import samples_of
from tests.stages.memory_log import MemoryLog


def _reading(media: MediaOptions | None = None, **units: Any) -> ReadingOptions:
    asr = AsrOptions(engine="given")
    return ReadingOptions(MediaRules(), media or MediaOptions(), UnitOptions(**units), asr)


# Orders to tests/core/media/isolation/misbehaving_decoder.py, and the sample's error code then.
ORDERS = {
    "pid": None,
    "abort": "media_crashed",
    "sleep 600": "media_timeout",
    "pid again": None,
    "grow": "media_memory",
    "raise it": "internal",
}


def _png(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _chunk(tmp_path: Path) -> pa.Table:
    (tmp_path / "a.png").write_bytes(_png())
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(np.zeros(32_000, "<i2").tobytes())
    segments = [{"start_s": 0.25, "end_s": 1.5, "text": "hello", "words": []}]
    text = {"type": "text", "text": "What is it?"}
    parts: dict[str, Row] = {
        "file": {"type": "image", "uri": str(tmp_path / "a.png")},
        "bytes": {"type": "image", "data": _png()},
        "sound": {"type": "audio", "uri": str(tmp_path / "a.wav"), "segments": segments},
        "none": {"type": "image", "uri": str(tmp_path / "none.png")},
        "bad": {"type": "image", "uri": str(tmp_path / "bad.png")},
    }
    rows = [{"sample_id": name, "messages": [user(part, text)]} for name, part in parts.items()]
    return read_chunk(tmp_path, rows)


def test_media_are_decoded_once_and_files_are_dropped(tmp_path: Path) -> None:
    chunk = _chunk(tmp_path)
    decoded = DecodeMedia(_reading())(chunk)
    assert codes_of(decoded) == [None, None, None, "media_missing", "media_corrupt"]
    file, inline, sound = state_rows(decoded)[:3]
    image = inline.media[0]
    assert isinstance(image, DecodedImage)
    assert (image.width, image.height) == (90, 60)
    np.testing.assert_array_equal(image.pixels, file.media[0].pixels)  # type: ignore[union-attr]
    assert inline.sample.parts[0].data is None
    assert inline.sample.parts[0].uri == INLINE_URI
    rows = samples_of(decoded)
    assert rows[1]["media_info"][0]["uri"] == ""
    assert rows[0]["media_info"][0]["uri"].endswith("a.png")
    assert rows[0]["media_info"][0]["sha256"] == rows[1]["media_info"][0]["sha256"]
    assert sound.media[0].duration_s == 2.0  # type: ignore[union-attr]


def test_a_list_of_frames_in_a_shard(tmp_path: Path) -> None:
    """Its bytes are dropped, its addresses are kept without what may be a secret."""
    (tmp_path / "a.png").write_bytes(_png())
    frames = [{"uri": str(tmp_path / "a.png")}, {"data": _png()}]
    signed = [{"uri": "s3://box/a.png?sig=x"}]
    rows = [
        {"sample_id": name, "messages": [user({"type": "video", "options": {"fps": 2}, **part})]}
        for name, part in (("list", {"frames": frames}), ("denied", {"frames": signed}))
    ]
    decoded = DecodeMedia(_reading())(read_chunk(tmp_path, rows))
    assert codes_of(decoded) == [None, "media_denied"]
    assert error_of(decoded, 1)["message"].startswith("part 0: frame 0: s3://box/a.png?…: ")
    row = samples_of(decoded)[0]
    info = row["media_info"][0]
    assert (info["uri"], info["type"], info["n_frames"], info["fps"]) == ("", "video", 2, 2.0)
    assert (info["sound"], info["step_edges_s"]) == (False, [0.0, 1.0])
    kept = [{"uri": str(tmp_path / "a.png"), "data": None}, {"uri": INLINE_URI, "data": None}]
    assert row["sample"]["messages"][0]["content"][0]["frames"] == kept
    published = with_plain_addresses(sample_structs(decoded).field("sample"))
    part = published.to_pylist()[1]["messages"][0]["content"][0]
    assert part["frames"] == [{"uri": "s3://box/a.png", "data": None}]


def test_shards_without_the_column_of_frames_read_as_before(tmp_path: Path) -> None:
    """As `omnitrace ingest` wrote them before there were lists of frames."""
    part = pa.struct([field for field in PART if field.name != "frames"])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
    schema = pa.schema([("sample_id", pa.string()), ("messages", pa.list_(message))])
    image = {"type": "image", "data": _png()}
    rows = [{"sample_id": "a", "messages": [user(image)]}]
    path = tmp_path / "old.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    chunk = read_samples(plan_of(path, 1))
    assert chunk.equals(read_samples(plan_of(write_shard(path, rows), 1)))
    assert codes_of(DecodeMedia(_reading())(chunk)) == [None]


@pytest.mark.slow
def test_only_the_sample_fails_when_its_decoder_hangs_or_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage continues with the other samples, and with the next chunk."""
    parts = [{"type": "image", "data": order.encode()} for order in ORDERS]
    rows = [{"sample_id": f"s{i}", "messages": [user(part)]} for i, part in enumerate(parts)]
    monkeypatch.setattr(
        "omnitrace_core.media.sample_decoder.IsolatedDecoder",
        partial(IsolatedDecoder, decoder="tests.core.media.isolation.misbehaving_decoder:decode"),
    )
    media = MediaOptions(decode_timeout_s=8, decode_memory_mib=300)
    stage = DecodeMedia(_reading(media))
    chunk = read_chunk(tmp_path, rows)
    decoded = stage(chunk)
    assert codes_of(decoded) == list(ORDERS.values())
    errors = [error for error in errors_of(decoded) if error]
    assert all(error["stage"] == "decode_media" for error in errors)
    assert all(error["message"].startswith("part 0: inline image: ") for error in errors[:-1])
    assert "KeyError: 'it'" in errors[-1]["message"]
    pids = {row.media[0].sha256 for row in state_rows(decoded) if not row.failed}
    assert str(os.getpid()) not in pids
    assert codes_of(stage(read_chunk(tmp_path, rows[:1]))) == [None]


def test_media_that_kill_the_process_are_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded media can be larger than the memory of the actor, which is then killed."""
    parts = [{"type": "image", "data": _png()} for _ in range(3)]
    rows = [{"sample_id": f"s{i}", "messages": [user(part)]} for i, part in enumerate(parts)]
    log, decode = MemoryLog(), SampleReader.decode

    def decode_or_die(reader: SampleReader, sample: Sample, shared: SharedMedia) -> Any:
        if sample.sample_id == "s1":
            raise Killed
        return decode(reader, sample, shared)

    monkeypatch.setattr(SampleReader, "decode", decode_or_die)
    media = MediaOptions(isolate=False)
    for _ in range(4):
        with pytest.raises(Killed):
            DecodeMedia(_reading(media), log)(read_chunk(tmp_path, rows))
        assert list(log.kept) == ["key.decode_media.json"]
    done = DecodeMedia(_reading(media), log)(read_chunk(tmp_path, rows))
    assert codes_of(done) == [None, "quarantined", None]
    assert error_of(done, 1)["stage"] == "decode_media"
    assert "run.chunk_samples" in error_of(done, 1)["message"]
    assert log.kept == {}


def test_attempts_at_chunks_of_text_are_not_recorded(tmp_path: Path) -> None:
    class NoLog(MemoryLog):
        def write(self, name: str, content: bytes) -> None:
            raise AssertionError("text cannot kill the process, so no attempt is recorded")

    text = {"type": "text", "text": "What is it?"}
    rows = [{"sample_id": "s", "messages": [user(text)]}]
    assert codes_of(DecodeMedia(_reading(), NoLog())(read_chunk(tmp_path, rows))) == [None]


def test_media_are_the_same_without_a_child(tmp_path: Path) -> None:
    chunk = _chunk(tmp_path)
    stages = [DecodeMedia(_reading(MediaOptions(isolate=isolate))) for isolate in (True, False)]
    isolated, plain = (samples_of(stage(chunk)) for stage in stages)
    for with_child, without_child in zip(isolated, plain, strict=True):
        for name in ("decode_s", "fetch_s"):
            with_child.pop(name), without_child.pop(name)
        assert with_child == without_child


def test_times_are_of_decoding_and_fetching_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock of the child, where its start took hundreds of seconds."""
    monkeypatch.setattr(IsolatedDecoder.__init__, "__defaults__", (CLOCKED,))
    images = [{"type": "image", "data": _png(seed)} for seed in range(3)]
    text = {"type": "text", "text": "What is it?"}
    shown: list[list[Row]] = [[], images[:1], images[1:]]
    rows = [{"sample_id": str(n), "messages": [user(*shown[n], text)]} for n in range(3)]
    decoded = samples_of(DecodeMedia(_reading())(read_chunk(tmp_path, rows)))
    assert [row["decode_s"] for row in decoded] == [0, 2, 4]
    assert [row["fetch_s"] for row in decoded] == [0, 30, 60]


def test_units_are_cut_and_speech_is_found_where_configured(tmp_path: Path) -> None:
    decoded = DecodeMedia(_reading())(_chunk(tmp_path))
    binned = ChunkSpeech(_reading())(decoded)
    assert codes_of(binned) == codes_of(decoded)
    assert [unit.kind for unit in state_rows(binned)[0].units] == ["image", "sentence"]
    assert [unit.kind for unit in state_rows(binned)[2].units] == [
        "audio_bin",
        "audio_bin",
        "sentence",
    ]
    assert state_rows(binned)[2].speech == {}
    chunked = ChunkSpeech(_reading(audio="chunks"))(decoded)
    (segment,) = state_rows(chunked)[2].speech[0]
    assert (segment.start_s, segment.end_s, segment.text) == (0.25, 1.5, "hello")
    unit = state_rows(chunked)[2].units[0]
    assert (unit.kind, unit.transcript) == ("audio_chunk", "hello")
    assert state_rows(chunked)[4].units == ()


def test_web_media_from_hosts_that_are_not_listed(tmp_path: Path) -> None:
    part = {"type": "image", "uri": "https://media.example.com/a.png?sig=SECRET"}
    chunk = read_chunk(tmp_path, [{"sample_id": "web", "messages": [user(part)]}])
    decoded = DecodeMedia(_reading())(chunk)
    assert codes_of(decoded) == ["media_denied"]
    (error,) = errors_of(decoded)
    assert error is not None
    assert "media.web_hosts" in error["message"]
    assert "SECRET" not in error["message"]
