"""Files of speech for tests, and how much of their speech some segments cover."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np

from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Float32, Part, PartOptions, SpeechSegment
from tests.core.media_files import DATA

# Two sentences of synthetic English speech (see tests/data/README.md), between pauses of 1, 2, 1 s.
SPEECH = ((1.0, 4.045), (6.045, 9.645))


def decode_speech(
    *, audio_start: float | None = None, audio_end: float | None = None
) -> tuple[DecodedAudio, Part]:
    """The decoded file of SPEECH, or the stretch of it between two times in seconds."""
    options = PartOptions(audio_start=audio_start, audio_end=audio_end)
    part = Part("audio", uri=str(DATA / "two_sentences.flac"), options=options)
    audio = decode_part(part, MediaOptions(), MediaRules())
    assert isinstance(audio, DecodedAudio)
    return audio, part


@dataclass(frozen=True, slots=True)
class Phrase:
    """What is said without a pause, and when, in seconds."""

    start_s: float
    end_s: float
    text: str


def seven_sentences(audio_end: float | None = None) -> tuple[DecodedAudio, Part, list[Phrase]]:
    """A file of seven sentences with pauses inside them, and its phrases; or its first seconds."""
    options = PartOptions(audio_end=audio_end)
    part = Part("audio", uri=str(DATA / "seven_sentences.ogg"), options=options)
    audio = decode_part(part, MediaOptions(), MediaRules())
    assert isinstance(audio, DecodedAudio)
    phrases = [Phrase(*item) for item in json.loads((DATA / "seven_sentences.json").read_text())]
    return audio, part, [p for p in phrases if audio_end is None or p.end_s <= audio_end]


def plain_words(text: str) -> list[str]:
    """The words of a text without punctuation and capital letters."""
    return re.sub(r"[^a-z' ]", " ", text.lower()).split()


def covered_s(
    segments: tuple[SpeechSegment, ...], intervals: tuple[tuple[float, float], ...]
) -> float:
    """Seconds of `intervals` that lie in the segments."""
    return sum(
        max(0.0, min(s.end_s, high) - max(s.start_s, low))
        for s in segments
        for low, high in intervals
    )


def long_speech() -> tuple[
    DecodedAudio, tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]
]:
    """A sound of about two minutes, its intervals of speech, and its intervals of silence."""
    audio, _ = decode_speech()
    rate = audio.sample_rate
    sentences = [audio.waveform[round(low * rate) : round(high * rate)] for low, high in SPEECH]
    noise = np.random.default_rng(0)
    pieces: list[Float32] = []
    spoken: list[tuple[float, float]] = []
    silent: list[tuple[float, float]] = []
    at_s = 0.0
    for number in range(16):
        pause_s = (2.0, 0.5, 8.0, 1.0, 4.0)[number % 5]
        pieces.append(noise.normal(0, 1e-4, round(pause_s * rate)).astype(np.float32))
        silent.append((at_s, at_s + pause_s))
        at_s += pause_s
        sentence = sentences[number % 2] * np.float32(0.3 if number % 3 else 1.0)
        pieces.append(sentence)
        spoken.append((at_s, at_s + len(sentence) / rate))
        at_s += len(sentence) / rate
    waveform = np.concatenate(pieces)
    sound = DecodedAudio(waveform, rate, 0.0, len(waveform) / rate, "")
    return sound, tuple(spoken), tuple(silent)
