"""Score chosen sources against reference evidence.

Reference evidence is a list of facts. A fact is represented by the set of units that carry it; one
of them is enough. So if two units state the same fact, a source that is either of them finds it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.records import LabelSource, SourceUnit

# The indices of the units that carry a fact; see the module docstring.
Fact = frozenset[int]


def evidence_facts(sources: Sequence[LabelSource], units: Sequence[SourceUnit]) -> tuple[Fact, ...]:
    """The facts that label sources stand for; label sources of one `group` are one fact."""
    facts: dict[object, set[int]] = {}
    for number, source in enumerate(sources):
        key = ("alone", number) if source.group is None else ("group", source.group)
        carriers = {unit.unit_id for unit in units if carries(unit, source)}
        facts.setdefault(key, set()).update(carriers)
    return tuple(frozenset(fact) for fact in facts.values())


def carries(unit: SourceUnit, source: LabelSource) -> bool:
    """Whether a unit carries a piece of reference evidence.

    Both must lie in the same part, and the unit must not be an instruction. Texts must share a
    character. Of two intervals or boxes, more than half of the smaller one must be shared. If the
    evidence or the unit has no place within the part, being in the same part is enough.
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


def precision_recall(chosen: Collection[int], evidence: Sequence[Fact]) -> tuple[float, float]:
    """Precision: share of the chosen units that carry a fact. Recall: share of facts found.

    Without chosen units the precision is 0; without evidence the recall is 0.
    """
    carriers = frozenset().union(*evidence)
    precision = len(carriers.intersection(chosen)) / len(chosen) if chosen else 0.0
    found = sum(not fact.isdisjoint(chosen) for fact in evidence)
    return precision, found / len(evidence) if evidence else 0.0


def f1(chosen: Collection[int], evidence: Sequence[Fact]) -> float:
    """Harmonic mean of precision and recall; 0 if both are 0."""
    precision, recall = precision_recall(chosen, evidence)
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def bootstrap(
    groups: Sequence[Sequence[float]],
    draws: int = 1_000,
    seed: int = 0,
    quantiles: tuple[float, float] = (0.025, 0.975),
) -> tuple[float, float, float]:
    """Mean of all scores, and the ends of its bootstrap percentile interval.

    groups: scores that depend on each other (those of one sample) form a group and are drawn
    together. draws: number of bootstrap resamples. If there are no scores, all three are NaN.
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
    """A statement in lower case, with single spaces and without full stops at its end."""
    return " ".join(statement.lower().split()).rstrip(".")


def match_statements(statements: Sequence[str], spans: Sequence[str]) -> list[int | None]:
    """For each reference statement the index of the first unused span of the same text, or None."""
    free: dict[str, list[int]] = {}
    for index, span in enumerate(spans):
        free.setdefault(normalised(span), []).append(index)
    return [_take(free.get(normalised(statement), [])) for statement in statements]


def _take(indices: list[int]) -> int | None:
    return indices.pop(0) if indices else None
