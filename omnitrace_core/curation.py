"""From a token-by-unit fold to the sources of each span (paper: Algorithm 1, line 8, and A.1).

Symbols, as in the paper:
    t, j            a token of the response; a source unit, whose index is its column in a fold
    M[t,j], K[t,j]  summed and largest signal of unit j at token t
    w_t             weight of the token's part of speech
    ŝ(t), c_t       the unit the token votes for, and its confidence
    v_t             the vote: w_t * max(c_t, 0) ** gamma
    p_j, r_j        share of a unit, and of its largest contiguous run, in a set of votes

Units compete for a token's vote within a pool, and votes are counted within a set. `joint` has one
pool and one set. `per_modality` has the pools {text, image}, {audio}, {video frames} and {video
sound}, and counts each modality as a set of its own, as the published release does: the tokens that
chose another modality are not in the set, so they do not interrupt its runs.

Sums are float64 and taken in token order, so stored traces give the same bytes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.errors import TraceError
from omnitrace_core.options import CurationOptions
from omnitrace_core.records import (
    SOUND_KINDS,
    Attribution,
    Float32,
    Fold,
    Segmentation,
    Source,
    SourceUnit,
    Span,
)

Float64 = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

# Paper, A.1. ANY is a word read without a tagger (see `language`): all such words weigh the same.
POS_WEIGHTS: Mapping[str, float] = {
    **dict.fromkeys(("NOUN", "PROPN", "NUM", "ANY"), 1.0),
    "VERB": 0.9,
    "ADJ": 0.8,
    "ADV": 0.5,
    **dict.fromkeys(("AUX", "PRON", "DET", "ADP", "CCONJ", "SCONJ", "PART"), 0.1),
    **dict.fromkeys(("PUNCT", "SPACE"), 0.0),
}
OTHER_POS_WEIGHT = 0.3

BUCKETS = ("text", "image", "audio", "video", "instruction", "markup", "generated")

_STREAMS = ("text", "image", "audio", "video", "sound")
_POOLS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "joint": (_STREAMS,),
    "per_modality": (("text", "image"), ("audio",), ("video",), ("sound",)),
}


def curate(
    fold: Fold,
    units: Sequence[SourceUnit],
    segmentation: Segmentation,
    options: CurationOptions,
    projection: Literal["mass", "peak"] = "mass",
    instructions: Literal["exclude", "include"] = "exclude",
) -> tuple[Attribution, ...]:
    """The sources of each span of a response (DESIGN section 2).

    `Source.rank` counts from 1 by falling mass. Ties go to the lower unit index everywhere.
    A token without mass on a pool casts no vote there, whatever the switches say. A span without a
    weighty token (punctuation alone) has no votes, confidence 0, and plain means for masses. A
    supported span may name no source: its votes too scattered for the filter, its pools too faint.

    Raises:
        TraceError: the fold, the units and the tags do not describe the same sample.
    """
    _check_shapes(fold, units, segmentation)
    spans = segmentation.spans
    pools, set_of = _arrange(units, options.pools, instructions)
    weights = pos_weights(segmentation.pos, options.pos_weighting)
    ballots = _project(fold.mass if projection == "mass" else fold.peak, pools)
    means = span_means(_side_by_side(fold, ballots), weights, spans)
    m = len(units)
    mass, rest, certainty = means[:, :m], means[:, m : m + 2], means[:, m + 2 :]

    tally = _count(ballots, weights, spans, set_of, options)
    admitted = _passes_filter(tally, options) & _audible(mass, pools, options.pool_min)
    taken = _walk(tally, admitted, set_of, options.coverage)
    voted = tally.votes.any(axis=1)
    confidence = np.where(voted, certainty.max(axis=1, initial=0.0), 0.0)
    supported = voted & (confidence >= options.min_confidence)
    masses = _bucket_masses(mass, rest, units)
    return tuple(
        Attribution(
            span=span,
            outcome="supported" if supported[i] else "unsupported",
            confidence=float(confidence[i]),
            masses=dict(zip(BUCKETS, masses[i], strict=True)),
            sources=_ranked(taken[i], units, mass[i], tally, i),
        )
        for i, span in enumerate(spans)
    )


def pos_weights(pos: Sequence[str], weighted: bool = True) -> Float64:
    """Weight w of each part-of-speech tag, [n_gen] float64; all 1 if not `weighted`."""
    if not weighted:
        return np.ones(len(pos))
    return np.array([POS_WEIGHTS.get(tag, OTHER_POS_WEIGHT) for tag in pos], dtype=np.float64)


def span_means(values: NDArray[np.floating], weights: Float64, spans: Sequence[Span]) -> Float64:
    """Weighted mean of each column over each span's tokens: Σ_t w_t x_t / Σ_t w_t.

    values: [n_gen, n_columns]; weights: [n_gen]. Returns [n_spans, n_columns] float64: the plain
    mean for a span whose tokens all weigh 0, zeros for one without tokens.
    """
    weighted = weights[:, None] * values
    means = np.zeros((len(spans), values.shape[1]))
    for i, span in enumerate(spans):
        tokens = slice(span.token_start, span.token_end)
        if weights[tokens].any():
            means[i] = weighted[tokens].sum(axis=0) / weights[tokens].sum()
        elif span.token_start < span.token_end:
            means[i] = values[tokens].mean(axis=0, dtype=np.float64)
    return means


@dataclass(frozen=True, slots=True)
class _Ballots:
    """What each token chose in each pool: ŝ(t) and c_t, both [n_pools, n_gen]."""

    unit: Index
    confidence: Float64


@dataclass(frozen=True, slots=True)
class _Tally:
    """The counted votes, each [n_spans, n_units] float64.

    votes: Σ v_t over the tokens that chose the unit; total: over all tokens of the unit's set.
    share, run, score: p_j, r_j, and what orders the walk.
    """

    votes: Float64
    total: Float64
    share: Float64
    run: Float64
    score: Float64


def _check_shapes(fold: Fold, units: Sequence[SourceUnit], segmentation: Segmentation) -> None:
    if fold.mass.shape != (len(segmentation.pos), len(units)):
        raise TraceError(
            f"the fold is {list(fold.mass.shape)} (tokens x units), but there are "
            f"{len(segmentation.pos)} tagged tokens and {len(units)} units; "
            "take the fold, the tags and the units of one and the same trace"
        )


def candidate_units(units: Sequence[SourceUnit], instructions: str) -> list[int]:
    """Indices of the units that can be sources: all, or all that do not instruct."""
    return [
        j for j, unit in enumerate(units) if instructions == "include" or unit.kind != "instruction"
    ]


def _arrange(
    units: Sequence[SourceUnit], pooling: str, instructions: str
) -> tuple[list[Index], Index]:
    """The candidates of each pool, ascending, and the vote set of each unit, [n_units].

    Pools without units are left out. Instructions compete as text, if they are included at all.
    """
    streams = ["sound" if unit.kind in SOUND_KINDS else unit.modality for unit in units]
    candidates = candidate_units(units, instructions)
    pools = ([j for j in candidates if streams[j] in pool] for pool in _POOLS[pooling])
    sets = [_STREAMS.index(stream) if pooling == "per_modality" else 0 for stream in streams]
    filled = [np.array(pool, dtype=np.intp) for pool in pools if pool]
    return filled, np.array(sets, dtype=np.intp)


def _project(signal: Float32, pools: Sequence[Index]) -> _Ballots:
    """The unit with the largest signal in each pool (paper, Algorithm 1, lines 7-8)."""
    shape = (len(pools), len(signal))
    unit, confidence = np.zeros(shape, dtype=np.intp), np.zeros(shape)
    for k, pool in enumerate(pools):
        rivals = signal[:, pool]
        best = rivals.argmax(axis=1)
        unit[k], confidence[k] = pool[best], rivals[np.arange(len(best)), best]
    return _Ballots(unit, confidence)


def _side_by_side(fold: Fold, ballots: _Ballots) -> Float64:
    """[n_gen, n_units + 2 + n_pools]: masses, markup, generated, and c_t of each pool.

    In C order, whatever the fold's layout: the order of summation depends on it.
    """
    n_gen, n_units = fold.mass.shape
    columns = np.empty((n_gen, n_units + 2 + len(ballots.unit)))
    columns[:, :n_units] = fold.mass
    columns[:, n_units] = fold.markup
    columns[:, n_units + 1] = fold.generated
    columns[:, n_units + 2 :] = ballots.confidence.T
    return columns


def _count(
    ballots: _Ballots,
    weights: Float64,
    spans: Sequence[Span],
    set_of: Index,
    options: CurationOptions,
) -> _Tally:
    """Votes, shares, runs and scores of all units in all spans at once."""
    n_sets, n_units = len(_STREAMS), len(set_of)
    span, unit, vote = _cast(ballots, weights, spans, set_of, options)
    cell = span * n_units + unit
    votes = _sum_by(cell, vote, (len(spans), n_units))
    total = _sum_by(span * n_sets + set_of[unit], vote, (len(spans), n_sets))[:, set_of]

    begins = np.ones(len(cell), dtype=np.bool_)
    begins[1:] = cell[1:] != cell[:-1]
    runs = np.bincount(np.cumsum(begins) - 1, weights=vote)
    longest = np.zeros(votes.size)
    np.maximum.at(longest, cell[begins], runs)

    divisor = np.where(total > 0, total, 1.0)
    share, run = votes / divisor, longest.reshape(votes.shape) / divisor
    score = options.alpha * share + (1 - options.alpha) * run if options.runs else share
    return _Tally(votes, total, share, run, score)


def _cast(
    ballots: _Ballots,
    weights: Float64,
    spans: Sequence[Span],
    set_of: Index,
    options: CurationOptions,
) -> tuple[Index, Index, Float64]:
    """All ballots cast inside spans, set by set in token order: their span, unit and vote v."""
    span_of = np.full(len(weights), -1, dtype=np.intp)
    for i, tokens in enumerate(spans):
        span_of[tokens.token_start : tokens.token_end] = i
    c = np.maximum(ballots.confidence, 0.0)
    strength = c**options.gamma if options.confidence else np.ones_like(c)
    vote = np.where(c > 0, weights * strength, 0.0).ravel()
    unit = ballots.unit.ravel()
    span = np.tile(span_of, len(ballots.unit))
    order = np.argsort(set_of[unit], kind="stable")
    order = order[span[order] >= 0]
    return span[order], unit[order], vote[order]


def _sum_by(cell: Index, values: Float64, shape: tuple[int, int]) -> Float64:
    """Sums of the values in each cell of a [rows, columns] table, added in their order."""
    sums = np.bincount(cell, weights=values, minlength=shape[0] * shape[1])
    return sums.astype(np.float64, copy=False).reshape(shape)


def _passes_filter(tally: _Tally, options: CurationOptions) -> Mask:
    """[n_spans, n_units]: units with votes, and with a share or a run that is large enough."""
    enough = tally.share >= options.p_min
    if options.runs:
        enough |= tally.run >= options.run_min
    return enough & (tally.votes > 0)


def _audible(means: Float64, pools: Sequence[Index], pool_min: float) -> Mask:
    """[n_spans, n_units]: units of a pool with at least `pool_min` of the span's unit mass."""
    masses = [means[:, pool].sum(axis=1) for pool in pools]
    everything = np.sum(masses, axis=0)
    audible = np.zeros(means.shape, dtype=np.bool_)
    for pool, mass in zip(pools, masses, strict=True):
        audible[:, pool] = (mass >= pool_min * everything)[:, None]
    return audible


def _walk(tally: _Tally, admitted: Mask, set_of: Index, coverage: float) -> list[list[int]]:
    """Units of each span, taken set by set in falling score until they cover the set's votes."""
    taken: list[list[int]] = [[] for _ in admitted]
    span, unit = np.nonzero(admitted)
    order = np.lexsort((unit, -tally.score[span, unit], set_of[unit], span))
    span, unit = span[order], unit[order]
    columns = (span, set_of[unit], unit, tally.votes[span, unit], tally.total[span, unit])
    steps = zip(*(column.tolist() for column in columns), strict=True)
    for (row, _), candidates in groupby(steps, key=itemgetter(0, 1)):
        covered = 0.0
        for _, _, j, votes, total in candidates:
            taken[row].append(j)
            covered += votes
            if covered / total >= coverage:
                break
    return taken


def _bucket_masses(mass: Float64, rest: Float64, units: Sequence[SourceUnit]) -> list[list[float]]:
    """Mass per span and bucket.

    mass: [n_spans, n_units]; rest: [n_spans, 2], markup and generated. Returns n_spans rows in the
    order of BUCKETS.
    """
    shape = (len(mass), len(BUCKETS) - rest.shape[1])
    buckets = ("instruction" if u.kind == "instruction" else u.modality for u in units)
    bucket_of = np.array([BUCKETS.index(bucket) for bucket in buckets], dtype=np.intp)
    cell = np.arange(shape[0])[:, None] * shape[1] + bucket_of
    sums = _sum_by(cell.ravel(), mass.ravel(), shape)
    return [
        [*units_part, *others]
        for units_part, others in zip(sums.tolist(), rest.tolist(), strict=True)
    ]


def _ranked(
    taken: Sequence[int], units: Sequence[SourceUnit], mass: Float64, tally: _Tally, row: int
) -> tuple[Source, ...]:
    """The taken units of one span as sources, by falling mass."""
    order = sorted(taken, key=lambda j: (-mass[j], j))
    return tuple(
        Source(
            unit=units[j],
            mass=float(mass[j]),
            share=float(tally.share[row, j]),
            run=float(tally.run[row, j]),
            score=float(tally.score[row, j]),
            rank=rank,
        )
        for rank, j in enumerate(order, start=1)
    )
