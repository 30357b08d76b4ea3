"""From sentences to chunks of speech: what belongs together, at least 5 s, at most 60 s (paper).

With sentence embeddings: the threshold is mean - 0.8 std of the similarities of neighbours, clamped
to [0.3, 0.7]; a chunk ends where the similarity falls below it and the chunk has its least length.
Without: a chunk ends at a long pause, one above mean + 0.8 std of the pauses where a chunk may end,
clamped to [0.3, 0.7] s. It may end behind a sentence; where no sentence end is known, anywhere.

A chunk never grows longer than the most: it then ends where it is (embeddings), or at its longest
pause (without). A single segment that is longer is divided between words, or evenly if it has
neither words nor text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.asr.engines.words import ends_sentence, join_texts, segment_of
from omnitrace_core.records import Float32, Segment

_LOW, _HIGH = 0.3, 0.7
_STDS = 0.8
# Sums of float64 seconds.
_EPSILON_S = 1e-6


def chunk_by_meaning(
    segments: Sequence[Segment], vectors: Float32, min_s: float, max_s: float
) -> tuple[Segment, ...]:
    """Chunks of segments in order of time.

    vectors: [n_segments, n_dims], the embedding of each segment's text, of length 1.
    """
    similar = (vectors[:-1] * vectors[1:]).sum(axis=1, dtype=np.float64)
    parts = similar < similarity_threshold(similar)
    chunks: list[list[Segment]] = []
    for index, segment in enumerate(segments):
        if (
            not chunks
            or _length(chunks[-1], segment) > max_s + _EPSILON_S
            or (parts[index - 1] and _length(chunks[-1]) >= min_s)
        ):
            chunks.append([])
        chunks[-1].append(segment)
    return _joined(chunks, max_s)


def similarity_threshold(similarities: NDArray[np.float64]) -> float:
    """mean - 0.8 std, clamped to [0.3, 0.7]; 0.7 of no similarities."""
    if similarities.size == 0:
        return _HIGH
    return float(np.clip(similarities.mean() - _STDS * similarities.std(), _LOW, _HIGH))


def chunk_by_pauses(segments: Sequence[Segment], min_s: float, max_s: float) -> tuple[Segment, ...]:
    """Chunks of segments in order of time, without a look at what they say."""
    if not segments:
        return ()
    pauses = np.asarray([b.start_s - a.end_s for a, b in pairwise(segments)], np.float64)
    allowed = _sentence_ends(segments)
    long_s = pause_threshold(pauses[allowed])
    chunks: list[list[Segment]] = [[segments[0]]]
    # Of the chunk that grows: the number of its first segment.
    first = 0
    for index in range(1, len(segments)):
        ends = allowed[index - 1] and pauses[index - 1] >= long_s
        if ends and _length(chunks[-1]) >= min_s:
            chunks.append([])
            first = index
        while chunks[-1] and _length(chunks[-1], segments[index]) > max_s + _EPSILON_S:
            cut = _best_cut(segments, pauses, allowed, first, index, min_s)
            chunks[-1:] = [list(segments[first:cut]), list(segments[cut:index])]
            first = cut
        chunks[-1].append(segments[index])
    return _joined(chunks, max_s)


def pause_threshold(pauses: NDArray[np.float64]) -> float:
    """mean + 0.8 std, clamped to [0.3, 0.7] s; 0.3 s of no pauses."""
    if pauses.size == 0:
        return _LOW
    return float(np.clip(pauses.mean() + _STDS * pauses.std(), _LOW, _HIGH))


def _sentence_ends(segments: Sequence[Segment]) -> NDArray[np.bool_]:
    """Behind which segments a chunk may end: [n_segments - 1]."""
    ends = [ends_sentence(segment.text) for segment in segments]
    return np.asarray(ends[:-1], np.bool_) | (not any(ends))


def _best_cut(
    segments: Sequence[Segment],
    pauses: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    first: int,
    index: int,
    min_s: float,
) -> int:
    """Where segments [first, index) end, for segment `index` does not fit any more.

    The longest pause, the last of equals: behind a sentence and the least length if there is such a
    place, else behind a sentence, else anywhere.
    """
    cuts = range(first + 1, index + 1)
    behind = [cut for cut in cuts if allowed[cut - 1]]
    enough = [cut for cut in behind if segments[cut - 1].end_s - segments[first].start_s >= min_s]
    return max(enough or behind or cuts, key=lambda cut: (float(pauses[cut - 1]), cut))


def _length(chunk: Sequence[Segment], more: Segment | None = None) -> float:
    """Seconds from the start of a chunk to its end, or to that of a segment that joins it."""
    return (more or chunk[-1]).end_s - chunk[0].start_s


def _joined(chunks: Sequence[Sequence[Segment]], max_s: float) -> tuple[Segment, ...]:
    return tuple(piece for chunk in chunks for piece in divide(_join(chunk), max_s))


def _join(chunk: Sequence[Segment]) -> Segment:
    return Segment(
        chunk[0].start_s,
        chunk[-1].end_s,
        join_texts(segment.text for segment in chunk),
        tuple(word for segment in chunk for word in segment.words),
    )


def divide(segment: Segment, max_s: float) -> list[Segment]:
    """A segment in pieces of at most `max_s`: between words, or evenly if it has no text.

    One with a text and no words stays whole, and so does a single word.
    """
    length_s = segment.end_s - segment.start_s
    if length_s <= max_s + _EPSILON_S:
        return [segment]
    if not segment.words:
        return [segment] if segment.text else _even(segment, math.ceil(length_s / max_s))
    if len(segment.words) == 1:
        return [segment]
    cut = _widest_gap(segment)
    halves = segment_of(segment.words[:cut]), segment_of(segment.words[cut:])
    return [piece for half in halves for piece in divide(half, max_s)]


def _widest_gap(segment: Segment) -> int:
    """Before which word a segment parts: at the longest pause of its middle half, if any."""
    words = segment.words
    quarter_s = (segment.end_s - segment.start_s) / 4
    low, high = segment.start_s + quarter_s, segment.end_s - quarter_s
    cuts = range(1, len(words))
    middle_s = (segment.start_s + segment.end_s) / 2
    inner = [cut for cut in cuts if low <= words[cut].start_s <= high]
    return max(
        inner or cuts,
        key=lambda cut: (
            words[cut].start_s - words[cut - 1].end_s,
            -abs(words[cut].start_s - middle_s),
        ),
    )


def _even(segment: Segment, n_pieces: int) -> list[Segment]:
    edges = np.linspace(segment.start_s, segment.end_s, n_pieces + 1).tolist()
    return [Segment(low, high) for low, high in pairwise(edges)]
