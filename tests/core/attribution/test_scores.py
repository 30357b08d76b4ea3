"""Scores of chosen sources against reference evidence."""

from __future__ import annotations

import math

import pytest

from omnitrace_core.attribution.scores import (
    Fact,
    bootstrap,
    carries,
    evidence_facts,
    f1,
    match_statements,
    precision_recall,
)
from omnitrace_core.records import LabelSource, SourceUnit

ONE, TWO, EITHER = frozenset({1}), frozenset({2}), frozenset({3, 4})


@pytest.mark.parametrize(
    ("chosen", "evidence", "precision", "recall", "score"),
    [
        ({1, 2}, [ONE, TWO], 1.0, 1.0, 1.0),
        ({1}, [ONE, TWO], 1.0, 0.5, 2 / 3),
        ({1, 5}, [ONE], 0.5, 1.0, 2 / 3),
        ({3}, [EITHER], 1.0, 1.0, 1.0),
        ({3, 4}, [EITHER], 1.0, 1.0, 1.0),
        ({5}, [ONE], 0.0, 0.0, 0.0),
        (set(), [ONE], 0.0, 0.0, 0.0),
        ({1}, [], 0.0, 0.0, 0.0),
        ({1}, [ONE, frozenset()], 1.0, 0.5, 2 / 3),
    ],
)
def test_scores(
    chosen: set[int], evidence: list[Fact], precision: float, recall: float, score: float
) -> None:
    assert precision_recall(chosen, evidence) == (precision, recall)
    assert f1(chosen, evidence) == pytest.approx(score)


def unit(unit_id: int, kind: str, part_index: int, **place: object) -> SourceUnit:
    modality = {"sentence": "text", "image": "image", "bin": "audio"}.get(kind, "text")
    return SourceUnit(unit_id, kind, modality, part_index, **place)  # type: ignore[arg-type]


def test_a_unit_carries_what_lies_in_it() -> None:
    sentence = unit(0, "sentence", 0, char_start=10, char_end=20)
    assert carries(sentence, LabelSource("text", 0, char_start=19, char_end=30))
    assert not carries(sentence, LabelSource("text", 0, char_start=20, char_end=30))
    assert not carries(sentence, LabelSource("text", 1, char_start=10, char_end=20))
    assert carries(sentence, LabelSource("text", 0)), "without a place the part is enough"
    second = unit(1, "bin", 2, start_s=1.0, end_s=2.0)
    assert carries(second, LabelSource("audio", 2, start_s=0.4, end_s=1.6))
    assert not carries(second, LabelSource("audio", 2, start_s=0.0, end_s=1.5))
    cell = unit(2, "image", 3, box=(0.0, 0.0, 10.0, 10.0))
    assert carries(cell, LabelSource("image", 3, box=(0.0, 0.0, 8.0, 8.0)))
    assert not carries(cell, LabelSource("image", 3, box=(5.0, 0.0, 20.0, 10.0)))
    instruction = unit(3, "instruction", 0, char_start=0, char_end=9)
    assert not carries(instruction, LabelSource("text", 0, char_start=0, char_end=9))


def test_interchangeable_evidence_is_one_fact() -> None:
    units = [unit(k, "bin", 0, start_s=float(k), end_s=k + 1.0) for k in range(4)]
    pieces = [
        LabelSource("audio", 0, start_s=0.0, end_s=1.0, group=7),
        LabelSource("audio", 0, start_s=2.0, end_s=3.0, group=7),
        LabelSource("audio", 0, start_s=3.0, end_s=4.0),
    ]
    assert set(evidence_facts(pieces, units)) == {frozenset({0, 2}), frozenset({3})}


def test_statements_match_by_their_words() -> None:
    spans = ["The lamp is  here.", "the cup is there", "The lamp is here."]
    wanted = ["The cup is there.", "The lamp is here.", "the lamp is here", "The lamp is here."]
    assert match_statements(wanted, spans) == [1, 0, 2, None]


def test_intervals_contain_the_mean_and_grow_with_dependence() -> None:
    alone = [[float(k % 2)] for k in range(200)]
    together = [[float(k % 2)] * 10 for k in range(20)]
    mean, low, high = bootstrap(alone)
    assert mean == 0.5
    assert 0.4 < low < mean < high < 0.6
    _, wide_low, wide_high = bootstrap(together)
    assert wide_high - wide_low > 2 * (high - low)
    assert bootstrap(alone) == bootstrap(alone), "the same seed, the same interval"
    assert bootstrap([[1.0], []])[0] == 1.0
    assert all(math.isnan(number) for number in bootstrap([[], []]))
