"""A chunk whose samples share media, through the stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from omnitrace_core.asr import PartAudio, SpeechResult
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import SpeechError
from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, UnitOptions
from omnitrace_core.reader import ReadingOptions
from omnitrace_core.records import Part, SpeechSegment
from stages import chunk_speech
from stages.arrow.chunk import state_rows
from stages.chunk_speech import ChunkSpeech
from stages.decode_media import DecodeMedia
from tests.core.media_files import audio_bytes, beep, image_bytes, write_clip
from tests.stages.chunks import Row, codes_of, error_of, errors_of, read_chunk, user
from tests.stages.logged_decoder import DECODER, LOG
from tests.stages.made_traces import samples_of

TEXT = {"type": "text", "text": "What is it?"}
GIVEN = AsrOptions(engine="given")


def photo(path: Path) -> Row:
    pixels = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    path.write_bytes(image_bytes(Image.fromarray(pixels)))
    return {"type": "image", "uri": str(path)}


def chunk_of(tmp_path: Path, *samples: Sequence[Row]) -> pa.Table:
    rows = [
        {"sample_id": f"s{number}", "messages": [user(*parts, TEXT)]}
        for number, parts in enumerate(samples)
    ]
    return read_chunk(tmp_path, rows)


@pytest.fixture
def decoded_by_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of what the decoding child decodes."""
    log = tmp_path / "decoded.log"
    log.write_text("")
    monkeypatch.setenv(LOG, str(log))
    monkeypatch.setattr(
        "omnitrace_core.media.sample_decoder.IsolatedDecoder",
        partial(IsolatedDecoder, decoder=DECODER),
    )
    return log


def test_shared_media_are_decoded_and_stored_once(tmp_path: Path, decoded_by_child: Path) -> None:
    image = photo(tmp_path / "a.png")
    clip = {"type": "video", "uri": str(write_clip(tmp_path / "a.mp4", 5, sound=beep(0.5, [0])))}
    missing = {"type": "image", "uri": str(tmp_path / "none.png")}
    samples = [[image, missing], [image], [clip, image], [missing], [image, image, clip]]
    stage = DecodeMedia(ReadingOptions(MediaRules(), asr=GIVEN))
    decoded = stage(chunk_of(tmp_path, *samples))
    kinds = [line.split()[0] for line in decoded_by_child.read_text().splitlines()]
    assert kinds == ["image", "image", "video"]
    assert codes_of(decoded) == ["media_missing", None, None, "media_missing", None]
    starts = [error["message"][:8] for error in errors_of(decoded) if error]
    assert starts == ["part 1: ", "part 0: "]
    rows = state_rows(decoded)
    one, two, four = rows[1].media, rows[2].media, rows[4].media
    assert one[0] is two[1] is four[0] is four[1]
    assert two[0] is four[2]
    # The image's 1.4 MB and the clip's are there once.
    pixels = one[0].pixels.nbytes + two[0].frames.nbytes  # type: ignore[union-attr]
    assert pixels < decoded.nbytes < 1.2 * pixels
    shas = [{info["sha256"] for info in row["media_info"] or ()} for row in samples_of(decoded)]
    assert shas[1] < shas[2] == shas[4]
    # The first sample that is decoded has the times of what it shares, also if it fails then.
    times = [row["decode_s"] for row in samples_of(decoded)]
    assert (times[1], times[4]) == (0, 0)
    assert times[2] > 0
    # The next chunk is another one.
    stage(chunk_of(tmp_path, [image], [image]))
    assert len(decoded_by_child.read_text().splitlines()) == 4


def test_equal_inline_media_are_decoded_once(tmp_path: Path, decoded_by_child: Path) -> None:
    photo(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    parts: list[Row] = [{"type": "image", "data": content, "evidence": i > 1} for i in range(4)]
    parts[3]["options"] = {"max_pixels": 56 * 56}
    decoded = DecodeMedia(ReadingOptions(MediaRules()))(
        chunk_of(tmp_path, *([part] for part in parts))
    )
    assert len(decoded_by_child.read_text().splitlines()) == 2
    rows = state_rows(decoded)
    assert rows[0].media[0] is rows[2].media[0]
    assert rows[3].media[0].pixels.nbytes <= 3 * 56 * 56  # type: ignore[union-attr]
    times = [row["decode_s"] for row in samples_of(decoded)]
    assert times[0] > 0
    assert times[1:3] == [0, 0]
    assert times[3] > 0


class CountingEngine:
    """A speech engine without batches: loud sounds fail, others have one segment."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        self.heard.append(part.uri)
        if audio.waveform.max() > 0.6:
            raise SpeechError("too loud")
        return (SpeechSegment(audio.start_s, audio.start_s + 0.5, f"{audio.start_s:g}"),)


class CountingBatchEngine(CountingEngine):
    """The same in batches."""

    def segments_of(self, sounds: Sequence[PartAudio]) -> list[SpeechResult]:
        results: list[SpeechResult] = []
        for sound in sounds:
            try:
                results.append(self.segments(sound.audio, sound.part))
            except SpeechError as error:
                results.append(error)
        return results


@pytest.mark.parametrize("in_one_group", [True, False])
@pytest.mark.parametrize("kind", [CountingEngine, CountingBatchEngine])
def test_speech_is_found_once_in_a_shared_sound(
    kind: type[CountingEngine],
    in_one_group: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = kind()
    monkeypatch.setattr("omnitrace_core.reader.load_engine", lambda options: engine)
    if not in_one_group:
        monkeypatch.setattr(chunk_speech, "MAX_GROUP_BYTES", 1)
    paths = [tmp_path / "soft.wav", tmp_path / "loud.wav"]
    for path, level in zip(paths, (1, 2), strict=True):
        path.write_bytes(audio_bytes(0.4 * level * np.ones(48_000, np.float32), 16_000))
    soft, loud = ({"type": "audio", "uri": str(path)} for path in paths)
    later = {**soft, "options": {"audio_start": 1.0}}
    reading = ReadingOptions(
        MediaRules(),
        MediaOptions(isolate=False),
        UnitOptions(audio="chunks"),
        AsrOptions(engine="vad", chunking="none"),
    )
    samples: list[list[Any]] = [[soft], [loud], [later, soft], [soft, soft], [soft, loud]]
    table = ChunkSpeech(reading)(DecodeMedia(reading)(chunk_of(tmp_path, *samples)))
    assert sorted(engine.heard) == sorted(map(str, [paths[0], paths[0], paths[1]]))
    assert codes_of(table) == [None, "speech_error", None, None, "speech_error"]
    assert error_of(table, 1) == error_of(table, 4)
    texts = [
        {index: [chunk.text for chunk in found] for index, found in row.speech.items()}
        for row in state_rows(table)
        if not row.failed
    ]
    assert texts == [{0: ["0"]}, {0: ["1"], 1: ["0"]}, {0: ["0"], 1: ["0"]}]


def test_the_samples_own_segments_are_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(audio_bytes(beep(3, [0]), 16_000))
    parts: list[Row] = [
        {
            "type": "audio",
            "uri": str(path),
            "segments": [{"start_s": 0.0, "end_s": 1.0 + number, "text": word, "words": []}],
        }
        for number, word in enumerate(("one", "two"))
    ]
    reading = ReadingOptions(
        MediaRules(), MediaOptions(isolate=False), UnitOptions(audio="chunks"), GIVEN
    )
    decoded = DecodeMedia(reading)(chunk_of(tmp_path, *([part] for part in parts)))
    rows = state_rows(ChunkSpeech(reading)(decoded))
    assert [row.speech[0][0].text for row in rows] == ["one", "two"]
    assert rows[0].media[0] is rows[1].media[0]
