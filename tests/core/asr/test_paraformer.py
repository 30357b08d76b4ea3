"""The engine paraformer: FunASR's own code on tiny models of its architectures."""

from __future__ import annotations

import logging
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.asr import LoadableEngine, load_engine
from omnitrace_core.asr.engines import paraformer
from omnitrace_core.asr.engines.words import join_texts
from omnitrace_core.errors import BackendError, FatalError, SpeechError
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import DecodedAudio, Part, SpeechSegment, Word
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


def heard(settings: dict[str, str], **cut: float) -> tuple[SpeechSegment, ...]:
    engine = load_engine(AsrOptions(engine="paraformer", **settings))  # type: ignore[arg-type]
    return engine.segments(*decode_speech(**cut))


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
    segments = heard(folders)
    check(segments, 0.0, 10.645)
    assert any(segment.text[-1] in "。.?\uff1f" for segment in segments)
    # Stretches of four seconds at most: words stand everywhere, not in the first stretch alone.
    words = [word for segment in segments for word in segment.words]
    assert {int(word.start_s // 4) for word in words} == {0, 1, 2}
    spoken = {word.text.strip(".,?。、\uff0c\uff1f").lower() for word in words}
    known = {word.replace("@@", "") for word in tiny_speech.WORDS}
    assert any(word in known for word in spoken)


def test_a_paraformer_that_was_not_trained_for_times(tmp_path: Path) -> None:
    check(
        heard({"model": tiny_speech.build_paraformer(tmp_path / "asr", own_times=False)}), 0.9, 9.8
    )


def test_punctuation_that_changes_the_words_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    class Rewriter:
        def generate(self, **given: object) -> list[dict[str, str]]:
            return [{"text": "Something else."}]

    words = [Word("some", 0, 1), Word("thing", 1, 2)]
    assert paraformer._punctuated(Rewriter(), words) == words  # type: ignore[arg-type]
    assert "changed the words of a transcript" in caplog.text


def test_the_same_words_every_time(folders: dict[str, str]) -> None:
    first = heard(folders)
    np.random.default_rng().normal(size=3)
    assert heard(folders) == first


def test_batches_are_sized_by_seconds(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    plain = paraformer._recognise

    def counted(model: object, waves: list[np.ndarray]) -> object:
        sizes.append(len(waves))
        return plain(model, waves)  # type: ignore[arg-type]

    monkeypatch.setattr(paraformer, "_recognise", counted)
    heard({**folders, "batch_s": 1})  # type: ignore[dict-item]
    heard({**folders, "batch_s": 60})  # type: ignore[dict-item]
    assert sizes == [1, 1, 1, 3]


def test_times_are_on_the_files_clock(folders: dict[str, str]) -> None:
    check(heard(folders, audio_start=5.0, audio_end=9.0), 5.0, 9.0)


def test_without_detector_silero_finds_the_speech(folders: dict[str, str]) -> None:
    segments = heard({"model": folders["model"], "punc_model": folders["punc_model"]})
    check(segments, 0.9, 9.8)
    words = [word for segment in segments for word in segment.words]
    assert not [word for word in words if word.start_s > 4.2 and word.end_s < 5.9]


def test_without_punctuation_pauses_part_segments(folders: dict[str, str]) -> None:
    segments = heard({"model": folders["model"]})
    check(segments, 0.9, 9.8)
    assert all(b.start_s - a.end_s >= 0.3 for a, b in pairwise(segments))
    assert len(segments) >= 2


def test_no_speech_gives_nothing(folders: dict[str, str]) -> None:
    silence = DecodedAudio(np.zeros(32_000, np.float32), 16_000, 0.0, 2.0, "")
    engine = load_engine(AsrOptions(engine="paraformer", model=folders["model"]))
    assert engine.segments(silence, Part("audio")) == ()


def test_the_process_stays_as_it_was(
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
    paraformer._load.cache_clear()
    heard({**folders, "threads": 2})  # type: ignore[dict-item]
    assert state() == expected
    assert capfd.readouterr() == ("", "")


def test_models_are_loaded_once_per_process(folders: dict[str, str]) -> None:
    paraformer._load.cache_clear()
    load_engine(AsrOptions(engine="paraformer", **folders))  # type: ignore[arg-type]
    assert paraformer._load.cache_info().misses == 0
    engine = load_engine(AsrOptions(engine="paraformer", **folders))  # type: ignore[arg-type]
    assert isinstance(engine, LoadableEngine)
    engine.load()
    assert paraformer._load.cache_info().misses == 1
    assert heard(folders) == heard(folders)
    assert paraformer._load.cache_info().misses == 1


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (IndexError("list index out of range"), SpeechError, r"two_sentences\.flac: paraformer"),
        (RuntimeError("CUDA error: device-side assert"), FatalError, "device is broken"),
    ],
)
def test_what_funasr_raises(
    folders: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
    message: str,
) -> None:
    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr(paraformer, "_recognise", fail)
    with pytest.raises(kind, match=message):
        heard(folders)


def test_weights_that_are_missing(folders: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "asr"
    broken.mkdir()
    for file in Path(folders["model"]).iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.pt").unlink()
    with pytest.raises(BackendError, match=r"asr\.model=.* has no model\.pt"):
        heard({"model": str(broken)})
    (broken / "model.pt").write_bytes(Path(folders["punc_model"], "model.pt").read_bytes())
    (broken / "config.yaml").unlink()
    with pytest.raises(BackendError, match=r"asr\.model=.* cannot be loaded by FunASR"):
        heard({"model": str(broken)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"asr\.engine=paraformer needs asr\.model"),
        ({"model": "funasr/paraformer-zh"}, r"asr\.model='funasr/paraformer-zh' .* its commit"),
        ({"model": "a/b@main"}, r"asr\.model='a/b@main'"),
        ({"model": str(DATA), "vad_model": "fsmn-vad"}, r"asr\.vad_model='fsmn-vad'"),
    ],
)
def test_models_are_pinned(settings: dict[str, str], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        load_engine(AsrOptions(engine="paraformer", **settings))  # type: ignore[arg-type]


def test_fewer_answers_than_questions() -> None:
    class Terse:
        def __init__(self, *answers: dict[str, object]) -> None:
            self.answers = list(answers)

        def generate(self, **given: object) -> list[dict[str, object]]:
            return self.answers

    waves = [np.zeros(1600, np.float32)] * 3
    assert paraformer._recognise(Terse({"text": ""}), waves) == [[], [], []]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="longer"):
        paraformer._recognise(Terse({"text": "a"}), waves)  # type: ignore[arg-type]


def test_what_is_said_without_times_is_spread() -> None:
    result = {"text": "a 12 bcd", "timestamp": [[0, 100], [200, 300]]}
    words = paraformer._words_of(result, 6.0)
    assert [(w.text, w.start_s, w.end_s) for w in words] == [
        ("a", 0.0, 1.0),
        ("12", 1.0, 3.0),
        ("bcd", 3.0, 6.0),
    ]
