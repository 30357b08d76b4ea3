"""Speech segments joined to speech chunks: by meaning, by pauses, and the rules of both."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from omnitrace_core.asr.chunking.boundaries import (
    chunk_by_meaning,
    chunk_by_pauses,
    pause_threshold,
    similarity_threshold,
    split_chunk,
)
from omnitrace_core.asr.engines.words import ends_sentence, join_texts
from omnitrace_core.records import Float32, SpeechChunk, SpeechSegment, Word

Chunk = Callable[[Sequence[SpeechSegment], float, float], tuple[SpeechChunk, ...]]


def by_meaning(
    segments: Sequence[SpeechSegment], min_s: float, max_s: float
) -> tuple[SpeechChunk, ...]:
    return chunk_by_meaning(segments, random_vectors(len(segments)), min_s, max_s)


def random_vectors(n: int) -> Float32:
    vectors = np.random.default_rng(n).normal(1.0, 1.0, (n, 4))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_segments(seed: int, longest_s: float = 20.0) -> list[SpeechSegment]:
    """Sentences, clauses and texts without punctuation; most with words, some of them long."""
    draw = random.Random(seed)
    ends = draw.choice([(".",), (".", ",", ""), ("",)])
    segments: list[SpeechSegment] = []
    at_s = draw.uniform(0, 5)
    for number in range(draw.randint(1, 40)):
        at_s += draw.choice([0.0, 0.1, 0.4, 2.0])
        count = draw.randint(1, 12)
        edges = sorted(
            at_s + draw.uniform(0.1, longest_s) * draw.random() for _ in range(count * 2)
        )
        words = [
            Word(f"w{number}x{i}", edges[2 * i], edges[2 * i + 1] + 0.05) for i in range(count)
        ]
        words[-1] = Word(words[-1].text + draw.choice(ends), words[-1].start_s, words[-1].end_s)
        text = join_texts(word.text for word in words)
        kept = tuple(words) if draw.random() < 0.8 else ()
        segments.append(SpeechSegment(words[0].start_s, words[-1].end_s, text, kept))
        at_s = words[-1].end_s
    return segments


@pytest.mark.parametrize("chunk", [by_meaning, chunk_by_pauses])
@pytest.mark.parametrize("seed", range(25))
def test_chunks_hold_all_segments_in_order(chunk: Chunk, seed: int) -> None:
    segments = random_segments(seed)
    chunks = chunk(segments, 5.0, 30.0)
    assert join_texts(c.text for c in chunks) == join_texts(s.text for s in segments)
    assert [w for c in chunks for w in c.words] == [w for s in segments for w in s.words]
    assert chunks[0].start_s == segments[0].start_s
    assert chunks[-1].end_s == segments[-1].end_s
    assert all(c.start_s < c.end_s for c in chunks)
    starts = {s.start_s for s in segments} | {w.start_s for s in segments for w in s.words}
    assert all(c.start_s in starts for c in chunks)


@pytest.mark.parametrize("chunk", [by_meaning, chunk_by_pauses])
@pytest.mark.parametrize("longest_s", [3.0, 30.0, 60.0])
@pytest.mark.parametrize("seed", range(15))
def test_a_chunk_is_too_long_only_if_one_segment_is(
    chunk: Chunk, longest_s: float, seed: int
) -> None:
    segments = random_segments(seed)
    whole = {(s.start_s, s.end_s) for s in segments if not s.words}
    for item in chunk(segments, 2.0, longest_s):
        fits = item.end_s - item.start_s <= longest_s + 1e-6
        assert fits or (item.start_s, item.end_s) in whole or len(item.words) == 1


@pytest.mark.parametrize("seed", range(25))
def test_chunks_end_with_sentences_if_any_are_known(seed: int) -> None:
    segments = random_segments(seed, longest_s=3.0)
    chunks = chunk_by_pauses(segments, 5.0, 10_000.0)
    if any(ends_sentence(s.text) for s in segments):
        assert all(ends_sentence(c.text) for c in chunks[:-1])
    assert all(c.end_s - c.start_s >= 5.0 for c in chunks[:-1])


@pytest.mark.parametrize("chunk", [by_meaning, chunk_by_pauses])
def test_one_segment_and_no_segments(chunk: Chunk) -> None:
    words = (Word("Alone.", 1.0, 2.0),)
    segment = SpeechSegment(1.0, 2.0, "Alone.", words)
    assert chunk([segment], 5.0, 60.0) == (SpeechChunk(1.0, 2.0, "Alone.", words),)
    assert chunk_by_pauses([], 5.0, 60.0) == ()


def sentences(*times: tuple[float, float], end: str = ".") -> list[SpeechSegment]:
    return [SpeechSegment(low, high, f"s{i}{end}") for i, (low, high) in enumerate(times)]


def spans(chunks: Sequence[SpeechChunk]) -> list[tuple[float, float]]:
    return [(c.start_s, c.end_s) for c in chunks]


class TestByMeaning:
    TIMES = ((0, 4), (4, 8), (8, 12), (12, 16), (16, 20))

    def vectors(self, *angles: float) -> Float32:
        at = np.radians(angles)
        return np.stack([np.cos(at), np.sin(at)], axis=1).astype(np.float32)

    def test_a_change_of_subject_ends_a_chunk(self) -> None:
        chunks = chunk_by_meaning(
            sentences(*self.TIMES), self.vectors(0, 5, 10, 100, 105), min_s=5, max_s=60
        )
        assert spans(chunks) == [(0, 12), (12, 20)]
        assert chunks[0].text == "s0. s1. s2."

    def test_not_below_the_least_length(self) -> None:
        chunks = chunk_by_meaning(
            sentences(*self.TIMES), self.vectors(0, 90, 95, 100, 105), min_s=5, max_s=60
        )
        assert spans(chunks) == [(0, 20)]
        free = chunk_by_meaning(
            sentences(*self.TIMES), self.vectors(0, 90, 95, 100, 105), min_s=0, max_s=60
        )
        assert spans(free) == [(0, 4), (4, 20)]

    def test_the_greatest_length_ends_a_chunk_of_one_subject(self) -> None:
        chunks = chunk_by_meaning(
            sentences(*self.TIMES), self.vectors(0, 0, 0, 0, 0), min_s=5, max_s=10
        )
        assert spans(chunks) == [(0, 8), (8, 16), (16, 20)]

    @pytest.mark.parametrize(
        ("similarities", "threshold"),
        [
            ([0.5, 0.5], 0.5),
            ([0.9, 0.9], 0.7),
            ([0.1, 0.1], 0.3),
            ([0.4, 0.8], 0.6 - 0.8 * 0.2),
            ([], 0.7),
        ],
    )
    def test_threshold(self, similarities: list[float], threshold: float) -> None:
        assert similarity_threshold(np.array(similarities)) == pytest.approx(threshold)


class TestByPauses:
    def test_a_long_pause_after_a_sentence_ends_a_chunk(self) -> None:
        segments = sentences((0, 4), (4.1, 8), (8.1, 12), (14, 18), (18.1, 22))
        assert spans(chunk_by_pauses(segments, 5, 60)) == [(0, 12), (14, 22)]

    def test_not_below_the_least_length(self) -> None:
        segments = sentences((0, 4), (6, 10), (10.1, 14))
        assert spans(chunk_by_pauses(segments, 5, 60)) == [(0, 14)]

    def test_not_inside_a_sentence(self) -> None:
        segments = sentences((0, 6), (8, 14), (14.1, 20), (20.1, 26))
        commas = [SpeechSegment(s.start_s, s.end_s, s.text.replace(".", ",")) for s in segments]
        mixed = [commas[0], segments[1], *segments[2:]]
        assert spans(chunk_by_pauses(segments, 5, 60))[0] == (0, 6)
        assert spans(chunk_by_pauses(mixed, 5, 60))[0] == (0, 26)
        # If no segment ends a sentence, a chunk may end after any segment.
        assert spans(chunk_by_pauses(commas, 5, 60))[0] == (0, 6)

    def test_a_chunk_that_grows_too_long_ends_at_its_longest_pause(self) -> None:
        segments = sentences((0, 6), (6.2, 12), (12.1, 18), (18.1, 24))
        # No pause is long, but 24 s are too many: the longest pause is 0.2 s.
        assert spans(chunk_by_pauses(segments, 5, 20)) == [(0, 6), (6.2, 24)]
        # A chunk ends inside a sentence only if no sentence ends in it.
        commas = [SpeechSegment(s.start_s, s.end_s, s.text.replace(".", ",")) for s in segments]
        assert spans(chunk_by_pauses([*commas[:2], *segments[2:]], 5, 20))[0] == (0, 18)
        assert spans(chunk_by_pauses([*commas[:3], segments[3]], 5, 20))[0] == (0, 6)

    @pytest.mark.parametrize(
        ("pauses", "threshold"),
        [([0.5, 0.5], 0.5), ([2.0, 3.0], 0.7), ([0.0, 0.1], 0.3), ([], 0.3)],
    )
    def test_threshold(self, pauses: list[float], threshold: float) -> None:
        assert pause_threshold(np.array(pauses)) == pytest.approx(threshold)


class TestSplitChunk:
    def test_between_words_at_the_longest_pause_of_the_middle(self) -> None:
        times = ((0, 0.5), (1.9, 4), (4, 5), (5.5, 6), (6, 7), (7, 8))
        words = tuple(Word(f"w{i}", low, high) for i, (low, high) in enumerate(times))
        chunks = split_chunk(SpeechChunk(0, 8, "", words), 5)
        assert spans(chunks) == [(0, 5), (5.5, 8)]
        assert [chunk.text for chunk in chunks] == ["w0 w1 w2", "w3 w4 w5"]

    def test_without_words(self) -> None:
        assert spans(split_chunk(SpeechChunk(0, 9), 4)) == [(0, 3), (3, 6), (6, 9)]
        text = SpeechChunk(0, 9, "Nobody knows when.")
        assert split_chunk(text, 4) == [text]
