"""Stretches of speech cut out of a sound, and transcribed in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omnitrace_core.asr.sound import RATE, at_rate, end_of
from omnitrace_core.records import DecodedAudio, Float32, Word

# Waveforms at 16 kHz in, the words of each out, on its own clock.
Recognise = Callable[[list[Float32]], list[list[Word]]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of speech: where it begins in the file, and its sound at 16 kHz."""

    start_s: float
    waveform: Float32

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return len(self.waveform) / RATE


def cut_pieces(audio: DecodedAudio, intervals: Sequence[tuple[float, float]]) -> list[Piece]:
    """The sound of some intervals, which are in seconds of the file; empty ones are left out."""
    waveform = at_rate(audio)
    high = end_of(audio)
    pieces: list[Piece] = []
    for start_s, end_s in intervals:
        start_s, end_s = max(start_s, audio.start_s), min(end_s, high)
        first, last = (round((at - audio.start_s) * RATE) for at in (start_s, end_s))
        if last > first:
            # A copy: models write into what they are given, and Arrow's memory is read-only.
            pieces.append(Piece(start_s, waveform[first:last].copy()))
    return pieces


def transcribe(pieces: Sequence[Piece], recognise: Recognise, batch_s: float) -> list[Word]:
    """The words of all pieces on the clock of the file, in the order of the pieces."""
    words: list[list[Word]] = [[] for _ in pieces]
    for batch in make_batches([piece.length_s for piece in pieces], batch_s):
        heard = recognise([pieces[index].waveform for index in batch])
        for index, spoken in zip(batch, heard, strict=True):
            start_s = pieces[index].start_s
            words[index] = [Word(w.text, start_s + w.start_s, start_s + w.end_s) for w in spoken]
    return [word for spoken in words for word in spoken]


def make_batches(lengths_s: Sequence[float], batch_s: float) -> list[list[int]]:
    """Indices in batches of like lengths, each at most `batch_s` seconds once padded, or one."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths_s)), key=lambda i: (lengths_s[i], i)):
        if batches and lengths_s[index] * (len(batches[-1]) + 1) <= batch_s:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
