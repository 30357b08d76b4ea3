"""Curation of the paper (arXiv 2604.13073, A.1) in plain Python: span by span, token by token.

The slow reference of test_curation.py and of benchmarks/curation.py. It shares no code with
omnitrace_core.attribution.curation, not even the table of weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from omnitrace_core.options import CurationOptions
from omnitrace_core.records import (
    Attribution,
    Float32,
    Fold,
    Segmentation,
    Source,
    SourceUnit,
    Span,
)

WEIGHTS = {
    "NOUN": 1.0, "PROPN": 1.0, "NUM": 1.0, "ANY": 1.0, "VERB": 0.9, "ADJ": 0.8, "ADV": 0.5,
    "AUX": 0.1, "PRON": 0.1, "DET": 0.1, "ADP": 0.1, "CCONJ": 0.1, "SCONJ": 0.1, "PART": 0.1,
    "PUNCT": 0.0, "SPACE": 0.0,
}  # fmt: skip


def reference_curate(
    fold: Fold,
    units: Sequence[SourceUnit],
    segmentation: Segmentation,
    options: CurationOptions,
    projection: str = "mass",
    instructions: str = "exclude",
) -> tuple[Attribution, ...]:
    """Same contract as omnitrace_core.attribution.curation.curate."""
    weights = [WEIGHTS.get(p, 0.3) if options.pos_weighting else 1.0 for p in segmentation.pos]
    return tuple(
        one_span(span, fold, units, weights, options, projection, instructions)
        for span in segmentation.spans
    )


def one_span(
    span: Span,
    fold: Fold,
    units: Sequence[SourceUnit],
    weights: Sequence[float],
    options: CurationOptions,
    projection: str,
    instructions: str,
) -> Attribution:
    tokens = list(range(span.token_start, span.token_end))
    mean_weights = {t: weights[t] for t in tokens}
    if sum(mean_weights.values()) == 0:
        mean_weights = {t: 1.0 for t in tokens}

    def mean(column: Sequence[float] | Float32) -> float:
        if not tokens:
            return 0.0
        top = sum(mean_weights[t] * float(column[t]) for t in tokens)
        return top / sum(mean_weights.values())

    mass = [mean(fold.mass[:, j]) for j in range(len(units))]
    candidates = [
        j for j, u in enumerate(units) if u.kind != "instruction" or instructions == "include"
    ]
    signal = fold.mass if projection == "mass" else fold.peak

    any_votes = False
    confidence = 0.0
    taken = []
    for pool in pools_of(candidates, units, options.pools):
        choice, c = {}, {}
        for t in tokens:
            best = pool[0]
            for j in pool:
                if signal[t, j] > signal[t, best]:
                    best = j
            choice[t], c[t] = best, float(signal[t, best])
        vote = {}
        for t in tokens:
            strength = max(c[t], 0.0) ** options.gamma if options.confidence else 1.0
            vote[t] = weights[t] * strength if c[t] > 0 else 0.0
        any_votes = any_votes or sum(vote.values()) > 0
        confidence = max(confidence, mean([c.get(t, 0.0) for t in range(len(weights))]))
        faint = sum(mass[j] for j in pool) < options.pool_min * sum(mass[j] for j in candidates)
        for members in sets_of(pool, units, options.pools):
            voters = [t for t in tokens if choice[t] in members]
            if not faint:
                taken += walk(members, voters, choice, vote, options)

    taken.sort(key=lambda source: (-mass[source[0]], source[0]))
    sources = tuple(
        Source(units[j], mass[j], share, run, score, rank + 1)
        for rank, (j, share, run, score) in enumerate(taken)
    )
    confidence = confidence if any_votes else 0.0
    supported = any_votes and confidence >= options.min_confidence
    return Attribution(
        span,
        "supported" if supported else "unsupported",
        confidence,
        masses(mass, units)
        | {name: mean(getattr(fold, name)) for name in ("markup", "uncovered", "generated")},
        sources,
    )


def walk(
    members: Sequence[int],
    voters: Sequence[int],
    choice: dict[int, int],
    vote: dict[int, float],
    options: CurationOptions,
) -> list[tuple[int, float, float, float]]:
    """The taken units of one set of votes: (unit, share, run, score)."""
    total = 0.0
    for t in voters:
        total += vote[t]
    if total == 0:
        return []
    votes = {j: 0.0 for j in members}
    longest = {j: 0.0 for j in members}
    current, previous = 0.0, None
    for t in voters:
        j = choice[t]
        votes[j] += vote[t]
        current = current + vote[t] if j == previous else vote[t]
        previous = j
        longest[j] = max(longest[j], current)
    p = {j: votes[j] / total for j in members}
    r = {j: longest[j] / total for j in members}
    score = {
        j: options.alpha * p[j] + (1 - options.alpha) * r[j] if options.runs else p[j]
        for j in members
    }
    taken = []
    covered = 0.0
    for j in sorted(members, key=lambda j: (-score[j], j)):
        if votes[j] == 0:
            continue
        coherent = options.runs and r[j] >= options.run_min
        if p[j] < options.p_min and not coherent:
            continue
        taken.append((j, p[j], r[j], score[j]))
        covered += votes[j]
        if covered / total >= options.coverage:
            break
    return taken


def stream(unit: SourceUnit) -> str:
    return "sound" if unit.kind in ("sound_bin", "sound_chunk") else unit.modality


def pools_of(candidates: list[int], units: Sequence[SourceUnit], pools: str) -> list[list[int]]:
    if pools == "joint":
        found = [candidates]
    else:
        found = [
            [j for j in candidates if stream(units[j]) in streams]
            for streams in (("text", "image"), ("audio",), ("video",), ("sound",))
        ]
    return [pool for pool in found if pool]


def sets_of(pool: list[int], units: Sequence[SourceUnit], pools: str) -> list[list[int]]:
    if pools == "joint":
        return [pool]
    names = sorted({stream(units[j]) for j in pool})
    return [[j for j in pool if stream(units[j]) == name] for name in names]


def masses(mass: Sequence[float], units: Sequence[SourceUnit]) -> dict[str, float]:
    found = dict.fromkeys(("text", "image", "audio", "video", "instruction"), 0.0)
    for j, unit in enumerate(units):
        if unit.kind == "instruction":
            found["instruction"] += mass[j]
        else:
            found[unit.modality] += mass[j]
    return found
