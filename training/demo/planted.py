"""Chosen beside planted sources: what a run of the planted world found, and how much of it.

Works on rows of samples/ and spans/ as Parquet gives them, and knows nothing of the world but its
labels, so any labelled run can be shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from omnitrace_core.attribution.scores import carries, evidence_items, f1, match_statements
from omnitrace_core.records import LabelSource, SourceUnit

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """One labelled statement: the span that makes it (None if none does), and its score.

    planted: its evidence, with the text of the first unit that carries it. modality: of the
    evidence, `mixed` if it is of several.
    """

    statement: str
    span: Record | None
    planted: tuple[tuple[LabelSource, str], ...]
    modality: str
    score: float


def scored(sample: Record, spans: Sequence[Record]) -> Iterator[Found]:
    """Every labelled statement of a sample with its span; one that nothing states scores 0.

    A label does not tell a video's frames from its sound: either counts. Statements that are
    labelled as resting on nothing are left out.
    """
    units = [_of(SourceUnit, unit) for unit in sample["units"]]
    labels = [label for label in sample["labels"] or [] if label["sources"]]
    matches = match_statements(
        [label["statement"] for label in labels], [span["text"] for span in spans]
    )
    for label, match in zip(labels, matches, strict=True):
        planted = tuple(_of(LabelSource, source) for source in label["sources"])
        span = None if match is None else spans[match]
        chosen = [] if span is None else [source["unit_id"] for source in span["sources"]]
        modalities = {source.modality for source in planted}
        yield Found(
            statement=label["statement"],
            span=span,
            planted=tuple((source, _text(source, units)) for source in planted),
            modality=modalities.pop() if len(modalities) == 1 else "mixed",
            score=f1(chosen, evidence_items(planted, units)),
        )


def _text(source: LabelSource, units: Sequence[SourceUnit]) -> str:
    return next((unit.text for unit in units if carries(unit, source)), "")


def means(found: Sequence[Found]) -> dict[str, tuple[float, int]]:
    """By modality of the evidence, the mean score and of how many statements."""
    scores: dict[str, list[float]] = defaultdict(list)
    for item in found:
        scores[item.modality].append(item.score)
    return {name: (sum(values) / len(values), len(values)) for name, values in scores.items()}


def _of(kind: Any, row: Record) -> Any:
    """A record of the core from a Parquet row, which may have other columns beside."""
    values = {field.name: row[field.name] for field in fields(kind) if field.name in row}
    if values.get("box") is not None:
        values["box"] = tuple(values["box"])
    return kind(**values)
