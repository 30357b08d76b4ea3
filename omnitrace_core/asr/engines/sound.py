"""A decoded sound as speech models take it: at 16 kHz, and stretches of speech cut out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from omnitrace_core.records import DecodedAudio, Float32

RATE = 16_000
# No word is spoken in less, and frontends of models fail on less than their windows.
_SHORTEST_S = 0.1


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of speech: where it begins in the file, and its sound at 16 kHz.

    waveform: [n_samples] float32, a view of the whole sound's.
    """

    start_s: float
    waveform: Float32

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return len(self.waveform) / RATE


def at_rate(audio: DecodedAudio) -> Float32:
    """The waveform at 16 kHz: [n_samples] float32."""
    if audio.sample_rate == RATE:
        return audio.waveform
    import librosa

    resampled: Float32 = librosa.resample(
        audio.waveform, orig_sr=audio.sample_rate, target_sr=RATE, res_type="soxr_hq"
    )
    return resampled


def resampled(audio: DecodedAudio) -> DecodedAudio:
    """The same sound at 16 kHz, so that what follows need not resample it again."""
    if audio.sample_rate == RATE:
        return audio
    return replace(audio, waveform=at_rate(audio), sample_rate=RATE)


def end_of(audio: DecodedAudio) -> float:
    """Where the decoded stretch ends, in seconds of the original file."""
    return min(audio.start_s + len(audio.waveform) / audio.sample_rate, audio.duration_s)


def cut_pieces(audio: DecodedAudio, intervals: Sequence[tuple[float, float]]) -> list[Piece]:
    """The sound of some intervals, which are in seconds of the file, but for those below 0.1 s."""
    waveform = at_rate(audio)
    high = end_of(audio)
    pieces: list[Piece] = []
    for start_s, end_s in intervals:
        start_s, end_s = max(start_s, audio.start_s), min(end_s, high)
        first, last = (round((at - audio.start_s) * RATE) for at in (start_s, end_s))
        if last - first >= _SHORTEST_S * RATE:
            pieces.append(Piece(start_s, waveform[first:last]))
    return pieces
