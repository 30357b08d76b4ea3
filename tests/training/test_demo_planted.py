"""Chosen beside planted sources, from rows as Parquet gives them."""

from __future__ import annotations

from typing import Any

import pytest

from training.demo.planted import means, scored
from training.demo.show import labelled_lines, score_lines

PLACE: dict[str, Any] = dict.fromkeys(
    ["char_start", "char_end", "box", "start_s", "end_s", "group"], None
)


def unit(unit_id: int, kind: str, modality: str, part_index: int, **place: Any) -> dict[str, Any]:
    told = {"unit_id": unit_id, "kind": kind, "modality": modality, "part_index": part_index}
    return {**PLACE, "text": "", "transcript": "", **told, **place}


SENTENCE = unit(0, "sentence", "text", 0, text="It is red.", char_start=0, char_end=10)
PICTURE = unit(1, "image", "image", 1, box=[0.0, 0.0, 56.0, 56.0])
SECOND = unit(2, "bin", "audio", 2, start_s=1.0, end_s=2.0)
UNITS = [SENTENCE, PICTURE, SECOND]


def label(statement: str, *sources: dict[str, Any]) -> dict[str, Any]:
    return {"statement": statement, "char_start": 0, "char_end": 1, "sources": list(sources)}


def at(modality: str, part_index: int, **place: Any) -> dict[str, Any]:
    return {**PLACE, "modality": modality, "part_index": part_index, **place}


SAMPLE = {
    "sample_id": "a",
    "units": UNITS,
    "labels": [
        label("The circle is red.", at("image", 1)),
        label("The bell came.", at("audio", 2, start_s=1.0, end_s=2.0), at("text", 0)),
        label("Nobody said so.", at("text", 0, char_start=2, char_end=4)),
    ],
}


def span(index: int, text: str, *chosen: dict[str, Any]) -> dict[str, Any]:
    sources = [{**row, "rank": k, "mass": 0.5} for k, row in enumerate(chosen, start=1)]
    return {"span_index": index, "text": text, "sources": sources}


SPANS = [span(0, "the circle is red", PICTURE, SENTENCE), span(1, "The bell came.", SECOND)]


def test_statements_are_scored_by_their_span() -> None:
    found = list(scored(SAMPLE, SPANS))
    assert [item.score for item in found] == pytest.approx([2 / 3, 2 / 3, 0.0])
    assert [item.modality for item in found] == ["image", "mixed", "text"]
    assert found[2].span is None
    assert means(found)["image"] == (pytest.approx(2 / 3), 1)


def test_they_are_shown_side_by_side() -> None:
    found = list(scored(SAMPLE, SPANS))
    shown = list(labelled_lines(SAMPLE, found))
    (row,) = [line for line in shown if "image part 1" in line]
    chosen, planted = row.split("|")
    assert "image part 1 [0, 0, 56, 56]" in chosen
    assert "image part 1" in planted
    assert any("not said" in line and "Nobody" in line for line in shown)
    assert all(len(line) <= 100 for line in shown)
    assert any("audio" not in line and "0.67" in line for line in score_lines(found))
    assert list(score_lines([])) == []
