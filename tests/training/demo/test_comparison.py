"""Chosen sources beside planted evidence, from rows as Parquet gives them."""

from __future__ import annotations

from typing import Any

import pytest

from training.demo.comparison import Score, score_by_modality, score_statements

PLACE: dict[str, Any] = dict.fromkeys(
    ["char_start", "char_end", "box", "start_s", "end_s", "group"], None
)


def unit(unit_id: int, kind: str, modality: str, part_index: int, **place: Any) -> dict[str, Any]:
    fields = {"unit_id": unit_id, "kind": kind, "modality": modality, "part_index": part_index}
    return {**PLACE, "text": "", "transcript": "", **fields, **place}


SENTENCE = unit(0, "sentence", "text", 0, text="It is red.", char_start=0, char_end=10)
PICTURE = unit(1, "image", "image", 1, box=[0.0, 0.0, 56.0, 56.0])
SECOND = unit(2, "bin", "audio", 2, start_s=1.0, end_s=2.0)
UNITS = [SENTENCE, PICTURE, SECOND]


def label(statement: str, *sources: dict[str, Any]) -> dict[str, Any]:
    return {"statement": statement, "char_start": 0, "char_end": 1, "sources": list(sources)}


def evidence(modality: str, part_index: int, **place: Any) -> dict[str, Any]:
    return {**PLACE, "modality": modality, "part_index": part_index, **place}


SAMPLE = {
    "sample_id": "a",
    "messages": [
        {
            "content": [
                {"type": "text", "text": "It is red.", "evidence": True},
                {"type": "image", "text": None, "evidence": True},
                {"type": "audio", "text": None, "evidence": True},
                {
                    "type": "text",
                    "text": "Which is red? What came? Who said so?",
                    "evidence": False,
                },
            ]
        }
    ],
    "metadata": [("task", "mixed")],
    "units": UNITS,
    "labels": [
        label("The circle is red.", evidence("image", 1)),
        label(
            "The bell came.",
            evidence("text", 0),
            evidence("audio", 2, start_s=1.0, end_s=2.0),
        ),
        label("Nobody said so.", evidence("text", 0, char_start=2, char_end=4)),
    ],
}


def span(index: int, text: str, *chosen: dict[str, Any]) -> dict[str, Any]:
    sources = [{**row, "rank": k, "mass": 0.5} for k, row in enumerate(chosen, start=1)]
    return {"span_index": index, "text": text, "sources": sources[::-1]}


SPANS = [span(0, "the circle is red", SENTENCE, PICTURE), span(1, "The bell came.", SECOND)]


def test_statements_are_scored_by_their_span() -> None:
    statements = list(score_statements(SAMPLE, SPANS))
    assert [statement.f1 for statement in statements] == pytest.approx([2 / 3, 2 / 3, 0.0])
    assert [statement.modality for statement in statements] == ["image", "mixed", "text"]
    assert [statement.was_said for statement in statements] == [True, True, False]
    scores = score_by_modality(statements)
    assert list(scores) == ["image", "mixed", "text"]
    assert (scores["image"].n_statements, scores["image"].n_said) == (1, 1)
    assert scores["image"].mean_f1 == pytest.approx(2 / 3)
    assert scores["text"] == Score(1, 0, 0.0)
    assert score_by_modality([]) == {}


def test_each_source_stands_beside_the_evidence_it_carries() -> None:
    picture, bell, unsaid = score_statements(SAMPLE, SPANS)
    pairs = [
        (pair.chosen and pair.chosen["unit_id"], pair.planted and pair.planted.modality)
        for pair in (*picture.pairs, *bell.pairs, *unsaid.pairs)
    ]
    assert pairs == [(0, None), (1, "image"), (2, "audio"), (None, "text"), (None, "text")]
    assert bell.pairs[1].text == "It is red."
    assert unsaid.pairs[0].text == " i", "the words that the label names"


def test_each_statement_has_its_question_and_its_task() -> None:
    found = list(score_statements(SAMPLE, SPANS))
    assert [item.question for item in found] == ["Which is red?", "What came?", "Who said so?"]
    assert {item.task for item in found} == {"mixed"}
    (fewer, _) = score_statements(
        {**SAMPLE, "labels": SAMPLE["labels"][:2], "metadata": None}, SPANS
    )
    assert (fewer.question, fewer.task) == ("Which is red? What came? Who said so?", "")
