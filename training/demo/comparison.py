"""Compare the sources that a run chose with the evidence that was planted.

Works on rows of samples/ and spans/ as Parquet gives them, and knows nothing of the planted world
but its labels, so any labelled run can be compared.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from omnitrace_core.attribution.scores import carries, evidence_facts, f1, match_statements
from omnitrace_core.records import LabelSource, SourceUnit

Record: TypeAlias = Mapping[str, Any]  # a Parquet row as pyarrow gives it


@dataclass(frozen=True, slots=True)
class Pair:
    """A chosen source beside the planted evidence that it carries; either may be missing.

    chosen: a row of the span's sources. text: the words of a planted text, else "".
    """

    chosen: Record | None
    planted: LabelSource | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class ScoredStatement:
    """A labelled statement with what the run chose for it.

    task: of the sample's metadata, "" if there is none. question: the texts of the sample that are
    no evidence; if it asks one question per labelled statement, the one that belongs to it.
    was_said: whether a span of the response makes the statement. modality: of the planted evidence,
    `mixed` if it has several. f1: of the chosen sources, 0 for a statement that was not said.
    """

    sample_id: str
    task: str
    question: str
    statement: str
    was_said: bool
    pairs: tuple[Pair, ...]
    modality: str
    f1: float


@dataclass(frozen=True, slots=True)
class Score:
    """How many statements there are, how many of them were said, and their mean F1."""

    n_statements: int
    n_said: int
    mean_f1: float


def score_statements(sample: Record, spans: Sequence[Record]) -> Iterator[ScoredStatement]:
    """Score every labelled statement of a sample; one that no span makes scores 0.

    A label does not tell a video's frames from its sound: either counts. Statements that are
    labelled as resting on nothing are left out.
    """
    units = [_from_row(SourceUnit, unit) for unit in sample["units"]]
    parts = [part for message in sample["messages"] for part in message["content"]]
    labels = sample["labels"] or []
    questions = _questions(parts, len(labels))
    matches = match_statements(
        [label["statement"] for label in labels if label["sources"]],
        [span["text"] for span in spans],
    )
    resting = [pair for pair in zip(labels, questions, strict=True) if pair[0]["sources"]]
    for (label, question), match in zip(resting, matches, strict=True):
        planted = [_from_row(LabelSource, source) for source in label["sources"]]
        chosen = [] if match is None else _by_rank(spans[match]["sources"])
        modalities = {source.modality for source in planted}
        yield ScoredStatement(
            sample_id=sample["sample_id"],
            task=dict(sample["metadata"] or ()).get("task", ""),
            question=question,
            statement=label["statement"],
            was_said=match is not None,
            pairs=tuple(_pairs(chosen, planted, units, parts)),
            modality=modalities.pop() if len(modalities) == 1 else "mixed",
            f1=f1([source["unit_id"] for source in chosen], evidence_facts(planted, units)),
        )


def score_by_modality(statements: Sequence[ScoredStatement]) -> dict[str, Score]:
    """The scores, by modality of the planted evidence, in alphabetical order."""
    groups: dict[str, list[ScoredStatement]] = defaultdict(list)
    for statement in statements:
        groups[statement.modality].append(statement)
    return {
        modality: Score(
            n_statements=len(group),
            n_said=sum(statement.was_said for statement in group),
            mean_f1=sum(statement.f1 for statement in group) / len(group),
        )
        for modality, group in sorted(groups.items())
    }


def _by_rank(sources: Sequence[Record]) -> list[Record]:
    return sorted(sources, key=lambda source: int(source["rank"]))


def _pairs(
    chosen: Sequence[Record],
    planted: Sequence[LabelSource],
    units: Sequence[SourceUnit],
    parts: Sequence[Record],
) -> Iterator[Pair]:
    """The chosen sources by rank, each with its evidence; then the evidence that was missed."""
    by_id = {unit.unit_id: unit for unit in units}
    missing = list(planted)
    for source in chosen:
        unit = by_id[source["unit_id"]]
        evidence = next((item for item in missing if carries(unit, item)), None)
        if evidence is None:
            yield Pair(source, None)
            continue
        missing.remove(evidence)
        yield Pair(source, evidence, _text(evidence, parts))
    for evidence in missing:
        yield Pair(None, evidence, _text(evidence, parts))


def _text(evidence: LabelSource, parts: Sequence[Record]) -> str:
    """The words of a planted text; all of its part if the label names no characters."""
    text = parts[evidence.part_index]["text"] if evidence.modality == "text" else ""
    return str(text)[evidence.char_start : evidence.char_end]


def _questions(parts: Sequence[Record], n_statements: int) -> list[str]:
    """The question of each labelled statement."""
    texts = [part["text"] for part in parts if part["type"] == "text" and not part["evidence"]]
    whole = " ".join(texts)
    each = re.findall(r"\S[^?]*\?", whole)
    return each if len(each) == n_statements else [whole] * n_statements


def _from_row(kind: Any, row: Record) -> Any:
    """A record of the core from a Parquet row, which may have more columns."""
    values = {field.name: row[field.name] for field in fields(kind) if field.name in row}
    if values.get("box") is not None:
        values["box"] = tuple(values["box"])
    return kind(**values)
