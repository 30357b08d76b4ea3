"""The engine paraformer: FunASR's own code on tiny models of its architectures."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.asr import LoadableEngine, load_engine
from omnitrace_core.asr.engines import paraformer
from omnitrace_core.asr.engines.words import join_texts
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import BackendError, FatalError, SpeechError
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import Part, SpeechSegment, Word
from tests.core.asr.speech_sounds import decode_speech
from tests.core.media_files import DATA

pytest.importorskip("funasr", reason="needs the extra paraformer")
pytest.importorskip("kaldi_native_fbank", reason="needs the extra paraformer")

from tests.core.asr import tiny_speech


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("funasr")
    return {
        "model": tiny_speech.build_paraformer(root / "asr"),
        "vad_model": tiny_speech.build_detector(root / "vad"),
        "punc_model": tiny_speech.build_punctuator(root / "punc"),
    }


def options(settings: Mapping[str, object]) -> AsrOptions:
    return AsrOptions.model_validate({"engine": "paraformer", **settings})


def segments_with(
    settings: Mapping[str, object],
    *,
    audio_start: float | None = None,
    audio_end: float | None = None,
) -> tuple[SpeechSegment, ...]:
    engine = load_engine(options(settings))
    return engine.segments(*decode_speech(audio_start=audio_start, audio_end=audio_end))


def check(segments: tuple[SpeechSegment, ...], low_s: float, high_s: float) -> None:
    assert segments
    for segment in segments:
        assert low_s <= segment.start_s < segment.end_s <= high_s
        assert segment.text == join_texts(word.text for word in segment.words)
        assert segment.words[0].start_s == segment.start_s
        assert segment.words[-1].end_s == segment.end_s
        assert all(a.end_s <= b.start_s for a, b in pairwise(segment.words))
        assert all(word.start_s < word.end_s for word in segment.words)
    assert all(a.end_s <= b.start_s for a, b in pairwise(segments))


def test_speech_punctuation_and_words_end_to_end(folders: dict[str, str]) -> None:
    segments = segments_with(folders)
    check(segments, 0.0, 10.645)
    assert any(segment.text[-1] in "。.?\uff1f" for segment in segments)
    # Clips are four seconds at most: there are words in each of them, not only in the first.
    words = [word for segment in segments for word in segment.words]
    assert {int(word.start_s // 4) for word in words} == {0, 1, 2}
    spoken = {word.text.strip(".,?。、\uff0c\uff1f").lower() for word in words}
    known = {word.replace("@@", "") for word in tiny_speech.WORDS}
    assert any(word in known for word in spoken)


def test_a_paraformer_without_a_predictor_of_times(tmp_path: Path) -> None:
    check(
        segments_with({"model": tiny_speech.build_paraformer(tmp_path / "asr", own_times=False)}),
        0.9,
        9.8,
    )


def test_punctuation_that_changes_the_words_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    class Rewriter:
        def generate(self, **arguments: object) -> list[dict[str, str]]:
            return [{"text": "Something else."}]

    words = [Word("some", 0, 1), Word("thing", 1, 2)]
    assert paraformer.punctuate(Rewriter(), words) == words  # type: ignore[arg-type]
    assert "changed the words of a transcript" in caplog.text


def test_the_same_words_every_time(folders: dict[str, str]) -> None:
    first = segments_with(folders)
    np.random.default_rng().normal(size=3)
    assert segments_with(folders) == first


def test_batches_are_sized_by_seconds(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = paraformer.recognise

    def count(model: object, waves: list[np.ndarray]) -> object:
        sizes.append(len(waves))
        return real(model, waves)  # type: ignore[arg-type]

    monkeypatch.setattr(paraformer, "recognise", count)
    segments_with({**folders, "batch_s": 1})
    segments_with({**folders, "batch_s": 60})
    assert sizes == [1, 1, 1, 3]


def test_times_are_seconds_of_the_file(folders: dict[str, str]) -> None:
    check(segments_with(folders, audio_start=5.0, audio_end=9.0), 5.0, 9.0)


def test_without_detector_silero_finds_the_speech(folders: dict[str, str]) -> None:
    segments = segments_with({"model": folders["model"], "punc_model": folders["punc_model"]})
    check(segments, 0.9, 9.8)
    words = [word for segment in segments for word in segment.words]
    assert not [word for word in words if word.start_s > 4.2 and word.end_s < 5.9]


def test_without_punctuation_segments_end_at_pauses(folders: dict[str, str]) -> None:
    segments = segments_with({"model": folders["model"]})
    check(segments, 0.9, 9.8)
    assert all(b.start_s - a.end_s >= 0.3 for a, b in pairwise(segments))
    assert len(segments) >= 2


def test_silence_has_no_segments(folders: dict[str, str]) -> None:
    silence = DecodedAudio(np.zeros(32_000, np.float32), 16_000, 0.0, 2.0, "")
    engine = load_engine(AsrOptions(engine="paraformer", model=folders["model"]))
    assert engine.segments(silence, Part("audio")) == ()


def test_the_state_of_the_process_is_restored(
    folders: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    def state() -> tuple[object, ...]:
        root = logging.getLogger()
        drawn = random.random(), float(np.random.random()), float(torch.rand(()))
        return drawn, torch.get_num_threads(), list(root.handlers), root.level, list(root.filters)

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

    seed()
    expected = state()
    seed()
    paraformer.load_models.cache_clear()
    segments_with({**folders, "threads": 2})
    assert state() == expected
    assert capfd.readouterr() == ("", "")


def test_models_are_loaded_once_per_process(folders: dict[str, str]) -> None:
    paraformer.load_models.cache_clear()
    load_engine(options(folders))
    assert paraformer.load_models.cache_info().misses == 0
    engine = load_engine(options(folders))
    assert isinstance(engine, LoadableEngine)
    engine.load()
    assert paraformer.load_models.cache_info().misses == 1
    assert segments_with(folders) == segments_with(folders)
    assert paraformer.load_models.cache_info().misses == 1


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (IndexError("list index out of range"), SpeechError, r"two_sentences\.flac: paraformer"),
        (RuntimeError("CUDA error: device-side assert"), FatalError, "device is broken"),
    ],
)
def test_exceptions_of_funasr(
    folders: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
    message: str,
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(paraformer, "recognise", fail)
    with pytest.raises(kind, match=message):
        segments_with(folders)


def test_missing_files_of_a_model(folders: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "asr"
    broken.mkdir()
    for file in Path(folders["model"]).iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.pt").unlink()
    with pytest.raises(BackendError, match=r"asr\.model=.* has no model\.pt"):
        segments_with({"model": str(broken)})
    (broken / "model.pt").write_bytes(Path(folders["punc_model"], "model.pt").read_bytes())
    (broken / "config.yaml").unlink()
    with pytest.raises(BackendError, match=r"asr\.model=.* cannot be loaded by FunASR"):
        segments_with({"model": str(broken)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"asr\.engine=paraformer needs asr\.model"),
        ({"model": "funasr/paraformer-zh"}, r"asr\.model='funasr/paraformer-zh' .* its commit"),
        ({"model": "a/b@main"}, r"asr\.model='a/b@main'"),
        ({"model": str(DATA), "vad_model": "fsmn-vad"}, r"asr\.vad_model='fsmn-vad'"),
    ],
)
def test_models_must_be_pinned(settings: dict[str, str], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        load_engine(options(settings))


def test_fewer_results_than_clips() -> None:
    class FixedResults:
        def __init__(self, *results: dict[str, object]) -> None:
            self.results = list(results)

        def generate(self, **arguments: object) -> list[dict[str, object]]:
            return self.results

    waves = [np.zeros(1600, np.float32)] * 3
    assert paraformer.recognise(FixedResults({"text": ""}), waves) == [[], [], []]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="longer"):
        paraformer.recognise(FixedResults({"text": "a"}), waves)  # type: ignore[arg-type]


def test_words_without_times_get_estimated_ones() -> None:
    result = {"text": "a 12 bcd", "timestamp": [[0, 100], [200, 300]]}
    words = paraformer.to_words(result, 6.0)
    assert [(w.text, w.start_s, w.end_s) for w in words] == [
        ("a", 0.0, 1.0),
        ("12", 1.0, 3.0),
        ("bcd", 3.0, 6.0),
    ]
