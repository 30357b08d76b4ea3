"""Stretches of speech cut out of a sound, and how they share batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnitrace_core.asr.sound import RATE, at_rate, end_of
from omnitrace_core.records import DecodedAudio, Float32

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


def make_batches(
    lengths_s: Sequence[float], batch_s: float, window_s: float = 0.0
) -> list[list[int]]:
    """Indices in batches of like lengths, each at most `batch_s` seconds once padded, or one.

    window_s: what each is padded to at least.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths_s)), key=lambda i: (lengths_s[i], i)):
        padded_s = max(lengths_s[index], window_s)
        if batches and padded_s * (len(batches[-1]) + 1) <= batch_s:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
