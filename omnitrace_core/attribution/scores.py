"""Scores of chosen sources against reference evidence.

Evidence is a list of items; an item is the set of units that carry it, any of which will do. So
units that state one fact twice are one item, and naming one of them is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.records import LabelSource, SourceUnit

Item = frozenset[int]


def evidence_items(sources: Sequence[LabelSource], units: Sequence[SourceUnit]) -> tuple[Item, ...]:
    """The units behind pieces of reference evidence; pieces of one `group` are one item."""
    items: dict[object, set[int]] = {}
    for number, source in enumerate(sources):
        key = ("alone", number) if source.group is None else ("group", source.group)
        found = {unit.unit_id for unit in units if carries(unit, source)}
        items.setdefault(key, set()).update(found)
    return tuple(frozenset(item) for item in items.values())


def carries(unit: SourceUnit, source: LabelSource) -> bool:
    """Whether a unit carries a piece of evidence.

    Of the same part: a text that shares a character with it; an interval or box of which more than
    half is shared, the half of the smaller of both. Where the evidence names no place, or the unit
    has none, the part is enough.
    """
    if unit.kind == "instruction" or unit.part_index != source.part_index:
        return False
    chars = _interval(unit.char_start, unit.char_end), _interval(source.char_start, source.char_end)
    if chars[0] and chars[1]:
        return _shared(chars[0], chars[1]) > 0
    times = _interval(unit.start_s, unit.end_s), _interval(source.start_s, source.end_s)
    if times[0] and times[1]:
        smaller = min(times[0][1] - times[0][0], times[1][1] - times[1][0])
        return _shared(times[0], times[1]) > smaller / 2
    if unit.box is not None and source.box is not None:
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = unit.box, source.box
        shared = _shared((ax0, ax1), (bx0, bx1)) * _shared((ay0, ay1), (by0, by1))
        return shared > min((ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0)) / 2
    return True


def _interval(start: float | None, end: float | None) -> tuple[float, float] | None:
    return None if start is None or end is None else (start, end)


def _shared(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(min(one[1], other[1]) - max(one[0], other[0]), 0.0)


def precision_recall(chosen: Collection[int], evidence: Sequence[Item]) -> tuple[float, float]:
    """Share of chosen units that carry evidence, and share of items that were found.

    Precision of nothing chosen, and recall of no evidence, are 0.
    """
    wanted = frozenset().union(*evidence)
    precision = len(wanted.intersection(chosen)) / len(chosen) if chosen else 0.0
    found = sum(not item.isdisjoint(chosen) for item in evidence)
    return precision, found / len(evidence) if evidence else 0.0


def f1(chosen: Collection[int], evidence: Sequence[Item]) -> float:
    """Harmonic mean of precision and recall; 0 if both are."""
    precision, recall = precision_recall(chosen, evidence)
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def bootstrap(
    groups: Sequence[Sequence[float]],
    draws: int = 1_000,
    seed: int = 0,
    quantiles: tuple[float, float] = (0.025, 0.975),
) -> tuple[float, float, float]:
    """Mean of all scores, and the ends of its percentile interval.

    groups: scores that depend on each other (those of one sample) are drawn together. Without any
    score all three are NaN.
    """
    sums = np.array([sum(group) for group in groups], dtype=np.float64)
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    if not sizes.sum():
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means: NDArray[np.float64] = np.empty(draws)
    for draw in range(draws):
        picked = rng.integers(0, len(sums), len(sums))
        size = sizes[picked].sum()
        means[draw] = sums[picked].sum() / size if size else np.nan
    low, high = np.nanquantile(means, quantiles)
    return float(sums.sum() / sizes.sum()), float(low), float(high)


def normalised(statement: str) -> str:
    """A statement without what does not change it: case, white space, full stops at its end."""
    return " ".join(statement.lower().split()).rstrip(".")


def match_statements(statements: Sequence[str], spans: Sequence[str]) -> list[int | None]:
    """For each reference statement the first span of the same text, each span used once."""
    free: dict[str, list[int]] = {}
    for index, span in enumerate(spans):
        free.setdefault(normalised(span), []).append(index)
    return [_take(free.get(normalised(statement), [])) for statement in statements]


def _take(indices: list[int]) -> int | None:
    return indices.pop(0) if indices else None
