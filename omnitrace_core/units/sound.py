"""Cut a sound into speech chunks and time bins, so that each second is in exactly one of them.

The gaps before, between and after speech chunks are cut into time bins. A gap of less than 0.3 s
joins the chunk before it, or the first chunk if it is the beginning of the sound. What is left
behind the last whole bin of a gap joins this bin if it is at most 0.3 s and half a bin long.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
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
# Times of transcripts are often rounded to tenths of a second, or refer to the padded file.
_TOLERANCE_S = 0.1

_OVERLAP = "speech chunks overlap; each begins where the one before it ends"
_OUTSIDE = "speech without length within the sound is left out"
_UNHEARD = "speech goes on outside what is heard; its transcript is whole"


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

    Each begins where the one before it ends at the earliest; one that lies within earlier ones has
    no place of its own. The text of each goes to the chunk that covers most of its time.
    """
    inside, notes = _within(sound, chunks)
    edges: list[tuple[float, float]] = []
    for chunk in inside:
        at_s = edges[-1][1] if edges else sound[0]
        if chunk.start_s < at_s - _EPSILON_S:
            notes.add(_OVERLAP)
        if max(chunk.start_s, at_s) < chunk.end_s:
            edges.append((max(chunk.start_s, at_s), chunk.end_s))
    texts: list[list[str]] = [[] for _ in edges]
    for chunk in inside:
        texts[_most_of(chunk, edges)].append(chunk.text)
    placed = [SpeechChunk(*e, join_texts(t)) for e, t in zip(edges, texts, strict=True)]
    return placed, tuple(sorted(notes))


def _within(
    sound: tuple[float, float], chunks: Sequence[SpeechChunk]
) -> tuple[list[SpeechChunk], set[str]]:
    """The chunks cut to the sound, in order of time, and notes on what this changes."""
    inside: list[SpeechChunk] = []
    notes: set[str] = set()
    for chunk in sorted(chunks, key=lambda item: (item.start_s, -item.end_s)):
        start_s, end_s = max(chunk.start_s, sound[0]), min(chunk.end_s, sound[1])
        if not start_s < end_s:  # a NaN fails, too
            notes.add(_OUTSIDE)
            continue
        if chunk.text and max(start_s - chunk.start_s, chunk.end_s - end_s) > _TOLERANCE_S:
            notes.add(_UNHEARD)
        inside.append(SpeechChunk(start_s, end_s, chunk.text))
    return inside, notes


def _most_of(chunk: SpeechChunk, edges: Sequence[tuple[float, float]]) -> int:
    """Which of the intervals covers most of a chunk; of equal ones, the last.

    edges: in order and without overlap; together they cover the chunk.
    """
    first = bisect_right(edges, chunk.start_s, key=lambda edge: edge[1])
    last = bisect_left(edges, chunk.end_s, key=lambda edge: edge[0])
    covered = [min(chunk.end_s, b) - max(chunk.start_s, a) for a, b in edges[first:last]]
    most_s = max(covered) - _EPSILON_S
    return max(first + k for k, shared_s in enumerate(covered) if shared_s >= most_s)


def speech_notes(
    index: int, notes: Sequence[str] = (_OUTSIDE, _OVERLAP, _UNHEARD)
) -> tuple[str, ...]:
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
