"""Finding speech in the sounds of a chunk, together where the engine can."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnitrace_core.asr import PartAudio, SpeechResult
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import BackendError, SpeechError
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, SpanOptions, UnitOptions
from omnitrace_core.reader import ReadingOptions
from omnitrace_core.records import Part, Sample, SpeechSegment
from omnitrace_core.samples.build import build_sample
from omnitrace_core.samples.rows import SampleRow
from stages import chunk_speech
from stages.arrow.chunk import state_rows
from stages.chunk_speech import ChunkSpeech
from stages.decode_media import DecodeMedia
from stages.guards.attempts import MAX_LOADS, AttemptLog
from stages.guards.deadline import HANGING_EXIT
from tests.stages.chunks import Killed, codes_of, error_of, read_chunk, user
from tests.stages.conftest import Exits
from tests.stages.made_traces import samples_of
from tests.stages.memory_log import MemoryLog

READING = ReadingOptions(
    MediaRules(),
    MediaOptions(isolate=False),
    UnitOptions(audio="chunks"),
    AsrOptions(engine="whisper", model="nobody/whisper@" + "0" * 40),
    SpanOptions(),
)


class LevelEngine:
    """A speech engine whose result depends on the level of a sound.

    0 ends the process, 1 fails, 2 has no speech, 3 raises an unexpected error, 4 a fatal one.
    """

    def __init__(self) -> None:
        self.group_sizes: list[int] = []

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        raise AssertionError("called for one sound")

    def segments_of(self, sounds: Sequence[PartAudio]) -> list[SpeechResult]:
        self.group_sizes.append(len(sounds))
        levels = [round(float(sound.audio.waveform[0]) * 10) for sound in sounds]
        if 3 in levels:
            raise KeyError("unexpected")
        if 4 in levels:
            raise BackendError("no such model")
        if 0 in levels:
            raise Killed
        results: dict[int, SpeechResult] = {1: SpeechError("one is too low"), 2: ()}
        return [
            results.get(level, (SpeechSegment(0.0, sound.audio.duration_s, f"level {level}."),))
            for level, sound in zip(levels, sounds, strict=True)
        ]


def audio(level: int, seconds: int = 6) -> dict[str, Any]:
    content = io.BytesIO()
    with wave.open(content, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(np.full(16_000 * seconds, level * 3277, "<i2").tobytes())
    return {"type": "audio", "data": content.getvalue()}


def run_stages(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *samples: Sequence[int],
    attempts: AttemptLog | None = None,
) -> Any:
    engine = LevelEngine()
    monkeypatch.setattr("omnitrace_core.reader.load_engine", lambda options: engine)
    rows = [
        {"sample_id": f"s{i}", "messages": [user(*map(audio, levels))]}
        for i, levels in enumerate(samples)
    ]
    decoded = DecodeMedia(READING)(read_chunk(tmp_path, rows))
    return engine, ChunkSpeech(READING, attempts)(decoded)


def test_sounds_of_a_chunk_are_processed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, table = run_stages(tmp_path, monkeypatch, [5, 6], [2], [], [7])
    assert engine.group_sizes == [4]
    assert codes_of(table)[:2] == [None, None]
    speech = [row.speech for row in state_rows(table)]
    texts = [{i: [s.text for s in found] for i, found in one.items()} for one in speech]
    assert [texts[0], texts[1], texts[3]] == [
        {0: ["level 5."], 1: ["level 6."]},
        {0: []},
        {0: ["level 7."]},
    ]
    assert {unit.kind for unit in state_rows(table)[1].units} == {"audio_bin"}
    notes = state_rows(table)[1].notes
    assert "part 0: no speech found, its sound is cut into time bins" in notes
    rows = samples_of(table)
    assert rows[0]["speech_s"] > 0


def test_one_sound_that_fails_costs_only_its_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, table = run_stages(tmp_path, monkeypatch, [5], [6, 1], [7])
    assert codes_of(table) == [None, "speech_error", None]
    assert error_of(table, 1)["message"] == "one is too low"
    assert engine.group_sizes == [4]


def test_unexpected_error_costs_only_its_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, table = run_stages(tmp_path, monkeypatch, [5], [3], [7])
    assert codes_of(table) == [None, "internal", None]
    assert engine.group_sizes == [3, 1, 1, 1]


def test_sample_that_cannot_be_built_costs_only_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(row: SampleRow) -> Sample:
        if row["sample_id"] == "s1":
            raise KeyError("unexpected")
        return build_sample(row)

    rows = [{"sample_id": f"s{i}", "messages": [user(audio(5))]} for i in range(3)]
    decoded = DecodeMedia(READING)(read_chunk(tmp_path, rows))
    monkeypatch.setattr("omnitrace_core.reader.load_engine", lambda options: LevelEngine())
    monkeypatch.setattr("stages.arrow.chunk.build_sample", build)
    table = ChunkSpeech(READING)(decoded)
    assert codes_of(table) == [None, "internal", None]
    assert error_of(table, 1)["stage"] == "chunk_audio"
    assert [bool(row.units) for row in state_rows(table) if not row.failed] == [True, True]


def test_a_model_that_cannot_be_loaded_is_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match="no such model"):
        run_stages(tmp_path, monkeypatch, [5], [4])


def test_memory_bounds_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_speech, "MAX_GROUP_BYTES", 2 * 6 * 64_000)
    engine, table = run_stages(tmp_path, monkeypatch, [5], [6], [7], [8], [9])
    assert codes_of(table) == [None] * 5
    assert engine.group_sizes == [2, 2, 1]


def test_sound_that_kills_its_process_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    for _ in range(4):
        with pytest.raises(Killed):
            run_stages(tmp_path, monkeypatch, [5], [6, 0], [7], attempts=log)
        assert [name.partition(".")[2] for name in log.kept] == ["chunk_audio.json"]
    engine, table = run_stages(tmp_path, monkeypatch, [5], [6, 0], [7], attempts=log)
    assert codes_of(table) == [None, "quarantined", None]
    assert error_of(table, 1)["stage"] == "chunk_audio"
    assert engine.group_sizes == [1, 1]
    assert log.kept == {}


def test_models_load_with_the_actor_and_blame_no_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading kills the process in the constructor; the first chunk raises the error in the end."""

    class Heavy(LevelEngine):
        def load(self) -> None:
            seen.append(list(log.kept))
            raise Killed

    class Dying(MemoryLog):
        def delete(self, name: str) -> None:
            """A dead process deletes nothing."""

    log, seen = Dying(), list[list[str]]()
    monkeypatch.setattr("omnitrace_core.reader.load_engine", lambda options: Heavy())
    for _ in range(MAX_LOADS):
        with pytest.raises(Killed):
            ChunkSpeech(READING, log)
    assert seen == [["worker.load.json"]] * MAX_LOADS
    rows = [{"sample_id": "s", "messages": [user(audio(5))]}]
    decoded = DecodeMedia(READING)(read_chunk(tmp_path, rows))
    with pytest.raises(BackendError, match=r"that loads asr\.engine=whisper died 5 times"):
        ChunkSpeech(READING, log)(decoded)
    assert len(seen) == MAX_LOADS


def test_chunk_is_done_when_its_table_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*arguments: object, **options: object) -> None:
        raise Killed

    monkeypatch.setattr("omnitrace_core.reader.load_engine", lambda options: LevelEngine())
    log = MemoryLog()
    decoded = DecodeMedia(READING)(
        read_chunk(tmp_path, [{"sample_id": "s", "messages": [user(audio(5))]}])
    )
    monkeypatch.setattr("stages.chunk_speech.with_results", too_much)
    with pytest.raises(Killed):
        ChunkSpeech(READING, log)(decoded)
    assert list(log.kept) == ["key.chunk_audio.json"]


def test_engine_that_hangs_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exits: Exits
) -> None:
    class Hanging(LevelEngine):
        def segments_of(self, sounds: Sequence[PartAudio]) -> list[SpeechResult]:
            exits.wait()
            raise Killed

    monkeypatch.setattr("omnitrace_core.reader.load_engine", lambda options: Hanging())
    rows = [{"sample_id": "s", "messages": [user(audio(5))]}]
    log = MemoryLog()
    with pytest.raises(Killed):
        ChunkSpeech(READING, log, 0.2)(DecodeMedia(READING)(read_chunk(tmp_path, rows)))
    assert exits.codes == [HANGING_EXIT]
    assert list(log.kept) == ["key.chunk_audio.json"]


def test_chunks_without_speech_to_find_are_not_counted(tmp_path: Path) -> None:
    reading = replace(READING, units=UnitOptions())
    rows = [{"sample_id": "s", "messages": [user(audio(5))]}]

    class NoLog(MemoryLog):
        def write(self, name: str, content: bytes) -> None:
            raise AssertionError("counted, though nothing here can kill the process")

    table = ChunkSpeech(reading, NoLog())(DecodeMedia(reading)(read_chunk(tmp_path, rows)))
    assert codes_of(table) == [None]
