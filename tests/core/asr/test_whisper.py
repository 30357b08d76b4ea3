"""The engine whisper: transformers' own pipeline on a tiny Whisper of random weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnitrace_core.asr import load_engine
from omnitrace_core.asr.chunking import embedding
from omnitrace_core.asr.engines import whisper
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import BackendError
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, UnitOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Message, Part, Sample
from tests.core.asr import tiny_speech
from tests.core.asr.speech_sounds import decode_speech, long_speech


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_speech.build_whisper(tmp_path_factory.mktemp("whisper") / "model")


def options(folder: str, **settings: object) -> AsrOptions:
    values = {"engine": "whisper", "model": folder, "language": "en", **settings}
    return AsrOptions.model_validate(values)


def test_sentences_and_words_end_to_end(folder: str) -> None:
    audio, part = decode_speech()
    engine = load_engine(options(folder))
    segments = engine.segments(audio, part)
    words = [word for segment in segments for word in segment.words]
    assert words
    # Words in each of the two sentences, in seconds of the file, and none between them.
    assert {word.start_s < 5 for word in words} == {True, False}
    assert all(0.9 < w.start_s < w.end_s < 9.8 for w in words)
    assert all(a.end_s <= b.start_s for a, b in pairwise(words))
    texts = {word.text for word in words}
    assert texts <= {"the", "man", "walks.", "angel", "forest,", "museum?"}
    assert engine.segments(audio, part) == segments


@pytest.mark.slow
def test_long_sounds_are_cut_into_windows_that_fit(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[float] = []
    real = whisper.recognise

    def record(model: object, language: object, waves: list[np.ndarray]) -> object:
        lengths.extend(len(wave) / 16_000 for wave in waves)
        assert language == "en"
        assert len(waves) <= 2
        return real(model, language, waves)  # type: ignore[arg-type]

    monkeypatch.setattr(whisper, "recognise", record)
    audio, spoken, _ = long_speech()
    segments = load_engine(options(folder, batch_s=60)).segments(audio, Part("audio"))
    # Random weights leave out some sentences, which are then transcribed by themselves.
    assert 4 <= sum(length > 5 for length in lengths) <= 5
    assert 20 < max(lengths) <= 28
    assert segments[-1].end_s > spoken[-1][0]
    assert all(a.end_s <= b.start_s for a, b in pairwise(segments))


@pytest.mark.parametrize(("time_s", "starts_s"), [(4.0, [0.0, 4.0]), (8.6, [0.0])])
def test_whisper_goes_on_at_a_time_but_not_into_padding(
    folder: str, monkeypatch: pytest.MonkeyPatch, time_s: float, starts_s: list[float]
) -> None:
    audio, part = decode_speech()
    engine = load_engine(options(folder))
    engine.segments(audio, part)
    pipeline = whisper.load_pipeline(folder, "cpu", 1)
    token = pipeline.tokenizer.convert_tokens_to_ids(f"<|{time_s:.2f}|>")
    starts: list[float] = []
    real = pipeline.model.generate_with_fallback

    def end_early(**values: Any) -> Any:
        """The model's output, with a time twice at its end, after which more is to come."""
        starts.append(int(values["seek"][0]) / 100)
        sequences, *others = real(**values)
        if len(starts) == 1:
            # The padding is silence as the feature extractor made it, not zeros.
            assert (values["segment_input"][0, :, -1] != 0).all()
            sequences[0][-2:] = token
        return sequences, *others

    monkeypatch.setattr(pipeline.model, "generate_with_fallback", end_early)
    segments = engine.segments(audio, part)
    # The window is 8.74 s long.
    assert starts == starts_s
    words = [word for segment in segments for word in segment.words]
    assert all(a.end_s <= b.start_s for a, b in pairwise(words))


def test_silence_loads_no_model() -> None:
    silence = DecodedAudio(np.zeros(32_000, np.float32), 16_000, 0.0, 2.0, "")
    engine = load_engine(options("nobody/whisper@" + "0" * 40))
    assert engine.segments(silence, Part("audio")) == ()


def test_the_reader_makes_chunks_and_falls_back_to_bins(folder: str) -> None:
    _, part = decode_speech()
    _, quiet = decode_speech(audio_start=0.0, audio_end=0.9)
    sample = Sample("s", (Message("user", (part, quiet)),))
    reader = SampleReader(
        ReadingOptions(MediaRules(), MediaOptions(), UnitOptions(audio="chunks"), options(folder))
    )
    ready = reader.read(sample)
    kinds = [(unit.part_index, unit.kind) for unit in ready.units]
    # The two sentences are 8.6 s long with their pause: one chunk or two.
    assert set(kinds) == {(0, "audio_chunk"), (0, "audio_bin"), (1, "audio_bin")}
    assert all(unit.transcript for unit in ready.units if unit.kind == "audio_chunk")
    assert "part 1: no speech found, its sound is cut into time bins" in ready.notes


def test_the_reader_loads_models_before_the_first_sound(folder: str, tmp_path: Path) -> None:
    settings = options(folder, embedding=tiny_speech.build_embedder(tmp_path / "embedder"))
    loads = (whisper.load_pipeline, embedding.load_model)
    for load in loads:
        load.cache_clear()
    rules, media = MediaRules(), MediaOptions()
    SampleReader(ReadingOptions(rules, media, UnitOptions(audio="bins"), settings)).load()
    assert [load.cache_info().currsize for load in loads] == [0, 0]
    SampleReader(ReadingOptions(rules, media, UnitOptions(audio="chunks"), settings)).load()
    assert [load.cache_info().currsize for load in loads] == [1, 1]
    given = AsrOptions(engine="given")
    SampleReader(ReadingOptions(rules, media, UnitOptions(audio="chunks"), given)).load()


def test_a_word_without_an_end_ends_with_its_clip() -> None:
    word = whisper.to_word({"text": " late", "timestamp": (1.0, None)}, 1.5)
    assert (word.text, word.start_s, word.end_s) == (" late", 1.0, 1.5)


def test_unusable_models(folder: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("others")
    without_times = tiny_speech.build_whisper(root / "without_times", word_times=False)
    with pytest.raises(BackendError, match="names no alignment_heads"):
        load_engine(options(without_times)).segments(*decode_speech())
    (root / "empty").mkdir()
    with pytest.raises(BackendError, match=r"asr\.model=.* cannot be loaded as Whisper"):
        load_engine(options(str(root / "empty"))).segments(*decode_speech())
    with pytest.raises(BackendError, match=r"asr\.model='openai/whisper-tiny' .* its commit"):
        load_engine(options("openai/whisper-tiny"))
