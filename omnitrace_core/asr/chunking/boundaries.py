"""Join neighbouring speech segments to chunks of 5 to 60 s, and find where each ends (paper).

`chunk_by_meaning` compares the sentence embeddings of neighbouring segments. A chunk that has its
least length ends where the similarity falls below mean - 0.8 std of all similarities, clamped to
[0.3, 0.7].

`chunk_by_pauses` needs no embeddings. A chunk that has its least length ends at a pause of at least
mean + 0.8 std of the pauses where a chunk may end, clamped to [0.3, 0.7] s. A chunk may end after a
sentence, or after any segment if no segment ends a sentence.

No chunk grows beyond the greatest length: `chunk_by_meaning` then ends it before the segment that
does not fit, `chunk_by_pauses` at its longest pause. A single segment that is longer is split
between words, or into equal parts if it has neither words nor text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.asr.engines.words import ends_sentence, join_texts
from omnitrace_core.records import Float32, SpeechChunk, SpeechSegment, Word

_LOWEST, _HIGHEST = 0.3, 0.7
_STDS = 0.8
# Rounding of sums of float64 seconds.
_EPSILON_S = 1e-6


def chunk_by_meaning(
    segments: Sequence[SpeechSegment], vectors: Float32, min_s: float, max_s: float
) -> tuple[SpeechChunk, ...]:
    """Join segments, in order of time, to chunks that keep to one subject.

    vectors: [n_segments, n_dims] float32, the embedding of each segment's text, of length 1.
    """
    similarities = (vectors[:-1] * vectors[1:]).sum(axis=1, dtype=np.float64)
    changes = similarities < similarity_threshold(similarities)
    groups: list[list[SpeechSegment]] = []
    for index, segment in enumerate(segments):
        if (
            not groups
            or _length_s(groups[-1], segment) > max_s + _EPSILON_S
            or (changes[index - 1] and _length_s(groups[-1]) >= min_s)
        ):
            groups.append([])
        groups[-1].append(segment)
    return _to_chunks(groups, max_s)


def similarity_threshold(similarities: NDArray[np.float64]) -> float:
    """mean - 0.8 std, clamped to [0.3, 0.7]; 0.7 if there are no similarities."""
    if similarities.size == 0:
        return _HIGHEST
    return float(np.clip(similarities.mean() - _STDS * similarities.std(), _LOWEST, _HIGHEST))


def chunk_by_pauses(
    segments: Sequence[SpeechSegment], min_s: float, max_s: float
) -> tuple[SpeechChunk, ...]:
    """Join segments, in order of time, to chunks that end at long pauses."""
    if not segments:
        return ()
    pauses_s = np.asarray([b.start_s - a.end_s for a, b in pairwise(segments)], np.float64)
    may_end = _may_end_after(segments)
    long_s = pause_threshold(pauses_s[may_end])
    groups: list[list[SpeechSegment]] = [[segments[0]]]
    # Index of the first segment of the last group.
    first = 0
    for index in range(1, len(segments)):
        ends = may_end[index - 1] and pauses_s[index - 1] >= long_s
        if ends and _length_s(groups[-1]) >= min_s:
            groups.append([])
            first = index
        while groups[-1] and _length_s(groups[-1], segments[index]) > max_s + _EPSILON_S:
            cut = _best_cut(segments, pauses_s, may_end, first, index, min_s)
            groups[-1:] = [list(segments[first:cut]), list(segments[cut:index])]
            first = cut
        groups[-1].append(segments[index])
    return _to_chunks(groups, max_s)


def pause_threshold(pauses_s: NDArray[np.float64]) -> float:
    """mean + 0.8 std, clamped to [0.3, 0.7] s; 0.3 s if there are no pauses."""
    if pauses_s.size == 0:
        return _LOWEST
    return float(np.clip(pauses_s.mean() + _STDS * pauses_s.std(), _LOWEST, _HIGHEST))


def _may_end_after(segments: Sequence[SpeechSegment]) -> NDArray[np.bool_]:
    """Whether a chunk may end after each segment but the last: [n_segments - 1] bool."""
    ends = [ends_sentence(segment.text) for segment in segments]
    return np.asarray(ends[:-1], np.bool_) | (not any(ends))


def _best_cut(
    segments: Sequence[SpeechSegment],
    pauses_s: NDArray[np.float64],
    may_end: NDArray[np.bool_],
    first: int,
    index: int,
    min_s: float,
) -> int:
    """The segment before which [first, index) is cut, since segment `index` does not fit any more.

    The longest pause wins, the last of equal ones: among places after a sentence and at the least
    length if there are any, else after a sentence, else anywhere.
    """
    cuts = range(first + 1, index + 1)
    after_sentence = [cut for cut in cuts if may_end[cut - 1]]
    long_enough = [
        cut for cut in after_sentence if segments[cut - 1].end_s - segments[first].start_s >= min_s
    ]
    return max(
        long_enough or after_sentence or cuts, key=lambda cut: (float(pauses_s[cut - 1]), cut)
    )


def _length_s(group: Sequence[SpeechSegment], added: SpeechSegment | None = None) -> float:
    """Seconds from the start of a group to its end, or to the end of a segment added to it."""
    return (added or group[-1]).end_s - group[0].start_s


def _to_chunks(groups: Sequence[Sequence[SpeechSegment]], max_s: float) -> tuple[SpeechChunk, ...]:
    return tuple(chunk for group in groups for chunk in split_chunk(_join(group), max_s))


def _join(group: Sequence[SpeechSegment]) -> SpeechChunk:
    return SpeechChunk(
        group[0].start_s,
        group[-1].end_s,
        join_texts(segment.text for segment in group),
        tuple(word for segment in group for word in segment.words),
    )


def split_chunk(chunk: SpeechChunk, max_s: float) -> list[SpeechChunk]:
    """Split a chunk into chunks of at most `max_s` seconds, between words if it has any.

    A chunk without words and text is split into equal parts. A chunk with a text but no words stays
    whole, and so does a single word.
    """
    length_s = chunk.end_s - chunk.start_s
    if length_s <= max_s + _EPSILON_S:
        return [chunk]
    if not chunk.words:
        return [chunk] if chunk.text else _split_evenly(chunk, math.ceil(length_s / max_s))
    if len(chunk.words) == 1:
        return [chunk]
    cut = _widest_gap(chunk)
    halves = _chunk_of(chunk.words[:cut]), _chunk_of(chunk.words[cut:])
    return [part for half in halves for part in split_chunk(half, max_s)]


def _chunk_of(words: Sequence[Word]) -> SpeechChunk:
    text = join_texts(word.text for word in words)
    return SpeechChunk(words[0].start_s, words[-1].end_s, text, tuple(words))


def _widest_gap(chunk: SpeechChunk) -> int:
    """The word before which a chunk is split: at the longest pause of its middle half, if any."""
    words = chunk.words
    quarter_s = (chunk.end_s - chunk.start_s) / 4
    low_s, high_s = chunk.start_s + quarter_s, chunk.end_s - quarter_s
    middle_s = (chunk.start_s + chunk.end_s) / 2
    cuts = range(1, len(words))
    in_middle = [cut for cut in cuts if low_s <= words[cut].start_s <= high_s]
    return max(
        in_middle or cuts,
        key=lambda cut: (
            words[cut].start_s - words[cut - 1].end_s,
            -abs(words[cut].start_s - middle_s),
        ),
    )


def _split_evenly(chunk: SpeechChunk, n_parts: int) -> list[SpeechChunk]:
    edges_s = np.linspace(chunk.start_s, chunk.end_s, n_parts + 1).tolist()
    return [SpeechChunk(start_s, end_s) for start_s, end_s in pairwise(edges_s)]
