"""Cut a sound into speech chunks and time bins, so that each second is in exactly one of them.

The gaps before, between and after speech chunks are cut into time bins. A gap of less than 0.3 s
joins the chunk before it, or the first chunk if it is the beginning of the sound. What is left
behind the last whole bin of a gap joins this bin if it is at most 0.3 s and half a bin long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from omnitrace_core.asr.engines.words import join_texts
from omnitrace_core.records import SpeechChunk

_AUDIO_TOKEN_S = 0.04
# A shorter pause is part of the speech around it: `vad` does not end a segment there, nor does
# joining end a chunk.
_LEAST_GAP_S = 0.3
# Rounding of sums of float64 seconds.
_EPSILON_S = 1e-6

_OVERLAP = "speech chunks overlap; each begins where the one before it ends"
_OUTSIDE = "speech without length within the sound is left out"


@dataclass(frozen=True, slots=True)
class SoundPiece:
    """A speech chunk with its transcript, or a time bin (transcript None)."""

    start_s: float
    end_s: float
    transcript: str | None = None


def cut_sound(
    sound: tuple[float, float], chunks: Sequence[SpeechChunk], bin_s: float
) -> list[SoundPiece]:
    """Pieces in order of time; each ends where the next begins, and together they are the sound.

    sound: its start and end in seconds. chunks: from `place_chunks`. bin_s: seconds per time bin.
    """
    if not chunks:
        return [SoundPiece(*edges) for edges in time_bins(*sound, bin_s)]
    least_s = max(_AUDIO_TOKEN_S, min(_LEAST_GAP_S, bin_s / 2))
    pieces: list[SoundPiece] = []
    at_s = sound[0]
    for chunk in [*chunks, SpeechChunk(sound[1], sound[1])]:
        gap_s = chunk.start_s - at_s
        if gap_s >= _LEAST_GAP_S - _EPSILON_S:
            pieces += (SoundPiece(*e) for e in time_bins(at_s, chunk.start_s, bin_s, least_s))
            at_s = chunk.start_s
        elif gap_s > 0 and pieces:
            pieces[-1] = replace(pieces[-1], end_s=chunk.start_s)
            at_s = chunk.start_s
        if chunk.end_s > chunk.start_s:
            pieces.append(SoundPiece(at_s, chunk.end_s, chunk.text))
            at_s = chunk.end_s
    return pieces


def place_chunks(
    sound: tuple[float, float], chunks: Sequence[SpeechChunk]
) -> tuple[list[SpeechChunk], tuple[str, ...]]:
    """The chunks within the sound, in order of time and without overlap, and notes on changes.

    A chunk that lies within an earlier one adds its text to that one.
    """
    placed: list[SpeechChunk] = []
    notes: set[str] = set()
    for chunk in sorted(chunks, key=lambda item: (item.start_s, -item.end_s)):
        start_s, end_s = max(chunk.start_s, sound[0]), min(chunk.end_s, sound[1])
        if not start_s < end_s:  # a NaN fails, too
            notes.add(_OUTSIDE)
            continue
        at_s = placed[-1].end_s if placed else sound[0]
        if start_s < at_s - _EPSILON_S:
            notes.add(_OVERLAP)
        start_s = max(start_s, at_s)
        if start_s < end_s:
            placed.append(SpeechChunk(start_s, end_s, chunk.text))
        else:
            text = join_texts((placed[-1].text, chunk.text))
            placed[-1] = replace(placed[-1], text=text)
    return placed, tuple(sorted(notes))


def speech_notes(index: int, notes: Sequence[str] = (_OUTSIDE, _OVERLAP)) -> tuple[str, ...]:
    """The notes of `place_chunks` on part `index`; by default all that there may be."""
    return tuple(f"part {index}: {note}" for note in notes)


def time_bins(
    start_s: float, end_s: float, bin_s: float, least_s: float = _AUDIO_TOKEN_S
) -> list[tuple[float, float]]:
    """[start, end) bins of `bin_s` seconds that tile [start_s, end_s]; the last may be shorter.

    A remainder below `least_s` (by default one audio token) joins the bin before it.
    """
    n_bins = max(1, math.ceil((end_s - start_s - least_s) / bin_s))
    edges = [start_s + k * bin_s for k in range(n_bins)] + [end_s]
    return list(pairwise(edges))
