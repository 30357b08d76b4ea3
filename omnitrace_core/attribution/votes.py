"""Count the votes of many samples at once (paper, A.1), in arrays instead of span by span.

Symbols: S spans of all samples together; n_gen tokens and n_units source units of one sample. A
cell is a pair of a span and a unit of its sample; the cells of all spans are numbered one after the
other. Sums are float64 and are added in token order within a cell, so the result for a sample does
not depend on which other samples are counted with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.options import CurationOptions
from omnitrace_core.records import Span

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]

# Stands for no unit, no pool and no span in arrays of their indices.
NONE = -1
# Upper limit for the numbers of vote sets, pools and mass buckets.
_MAX_GROUPS = 5


@dataclass(frozen=True, slots=True)
class SampleVotes:
    """The votes of one sample's tokens, with its spans and units. Symbols as in `curation`.

    unit, confidence: [n_pools, n_gen], ŝ(t) and c_t in each pool; NONE and 0 in a pool without
    units. weight: [n_gen], w_t. spans: of the response, in order. mass: [n_spans, n_units], the
    weighted mean of M[t,j] over the span's tokens.
    set_of, pool_of, bucket_of: [n_units], the set in which a unit's votes are counted, the pool in
    which it competes (NONE if it cannot be a source), and the bucket of its mass.
    """

    unit: Indices
    confidence: Float64
    weight: Float64
    spans: Sequence[Span]
    mass: Float64
    set_of: Indices
    pool_of: Indices
    bucket_of: Indices


@dataclass(frozen=True, slots=True)
class ChosenSources:
    """The sources of S spans.

    voted: [S], whether a token of the span cast a vote. masses: [S, 5], by bucket. n_sources: [S].
    The other arrays have one entry per source, span by span, in each span by falling mass: unit,
    its index in its sample, and the numbers of `records.Source`.
    """

    voted: Mask
    masses: Float64
    n_sources: Indices
    unit: Indices
    mass: Float64
    share: Float64
    run: Float64
    score: Float64


@dataclass(frozen=True, slots=True)
class _Cells:
    """Span and unit of each cell, and the unit's set, pool, bucket and mean mass.

    begin: [S], the first cell of each span.
    """

    begin: Indices
    span: Indices
    unit: Indices
    set: Indices
    pool: Indices
    bucket: Indices
    mass: Float64


def choose_sources(samples: Sequence[SampleVotes], options: CurationOptions) -> ChosenSources:
    """Count the votes of all spans and choose their sources."""
    n_spans = sum(len(sample.spans) for sample in samples)
    cells = _cells(samples)
    n_cells = len(cells.span)
    cell, group, vote = _cast_votes(samples, cells, options)
    votes = _sums(cell, vote, n_cells)
    total = _sums(group, vote, n_spans * _MAX_GROUPS)[cells.span * _MAX_GROUPS + cells.set]
    divisor = np.where(total > 0, total, 1.0)
    share, run = votes / divisor, _longest_runs(cell, vote, n_cells) / divisor
    score = options.alpha * share + (1 - options.alpha) * run if options.runs else share

    enough = share >= options.p_min
    if options.runs:
        enough |= run >= options.run_min
    eligible = enough & (votes > 0) & _in_strong_pool(cells, n_spans, options.pool_min)
    taken = _take_until_covered(
        np.flatnonzero(eligible), cells, score, votes, total, options.coverage
    )
    taken = taken[np.lexsort((cells.unit[taken], -cells.mass[taken], cells.span[taken]))]
    return ChosenSources(
        voted=_sums(cells.span, votes, n_spans) > 0,
        masses=_by_group(cells.span, cells.bucket, cells.mass, n_spans),
        n_sources=np.bincount(cells.span[taken], minlength=n_spans),
        unit=cells.unit[taken],
        mass=cells.mass[taken],
        share=share[taken],
        run=run[taken],
        score=score[taken],
    )


def _cells(samples: Sequence[SampleVotes]) -> _Cells:
    n_units = np.array([len(sample.set_of) for sample in samples], dtype=np.intp)
    n_spans = np.array([len(sample.spans) for sample in samples], dtype=np.intp)
    width = np.repeat(n_units, n_spans)
    begin = np.cumsum(width) - width
    span = np.repeat(np.arange(len(width)), width)
    unit = np.arange(len(span)) - begin[span]
    # The units of all samples are numbered one after the other; a sample's begin at `first`.
    first = np.repeat(np.cumsum(n_units) - n_units, n_spans)
    numbered = first[span] + unit
    return _Cells(
        begin=begin,
        span=span,
        unit=unit,
        set=_joined([sample.set_of for sample in samples])[numbered],
        pool=_joined([sample.pool_of for sample in samples])[numbered],
        bucket=_joined([sample.bucket_of for sample in samples])[numbered],
        mass=np.concatenate([np.zeros(0), *(sample.mass.ravel() for sample in samples)]),
    )


def _joined(arrays: Sequence[Indices]) -> Indices:
    return np.concatenate([np.zeros(0, dtype=np.intp), *arrays])


def _cast_votes(
    samples: Sequence[SampleVotes], cells: _Cells, options: CurationOptions
) -> tuple[Indices, Indices, Float64]:
    """The votes of all tokens inside spans, set by set in token order: cell, group and weight v_t.

    A group is a pair of a span and a vote set.
    """
    if not samples:
        empty = np.zeros(0, dtype=np.intp)
        return empty, empty, np.zeros(0)
    span_of = _spans_of_tokens(samples)
    unit = np.concatenate([sample.unit for sample in samples], axis=1)
    c = np.maximum(np.concatenate([sample.confidence for sample in samples], axis=1), 0.0)
    weight = np.concatenate([sample.weight for sample in samples])
    strength = c**options.gamma if options.confidence else np.ones_like(c)
    vote = np.where(c > 0, weight * strength, 0.0)
    pool, token = np.nonzero((unit != NONE) & (span_of != NONE))
    span = span_of[token]
    cell = cells.begin[span] + unit[pool, token]
    set_ = cells.set[cell]
    order = np.argsort(set_, kind="stable")
    return cell[order], (span * _MAX_GROUPS + set_)[order], vote[pool, token][order]


def _spans_of_tokens(samples: Sequence[SampleVotes]) -> Indices:
    """The span of each token of all samples, NONE for a token outside spans."""
    n_tokens = [len(sample.weight) for sample in samples]
    span_of = np.full(sum(n_tokens), NONE, dtype=np.intp)
    index = first = 0
    for sample, n in zip(samples, n_tokens, strict=True):
        for span in sample.spans:
            span_of[first + span.token_start : first + span.token_end] = index
            index += 1
        first += n
    return span_of


def _longest_runs(cell: Indices, vote: Float64, n_cells: int) -> Float64:
    """The largest sum over consecutive votes for the same cell, [n_cells]."""
    begins = np.ones(len(cell), dtype=np.bool_)
    begins[1:] = cell[1:] != cell[:-1]
    runs = _sums(np.cumsum(begins) - 1, vote, 0)
    longest = np.zeros(n_cells)
    np.maximum.at(longest, cell[begins], runs)
    return longest


def _in_strong_pool(cells: _Cells, n_spans: int, pool_min: float) -> Mask:
    """[n_cells]: whether the unit's pool has at least `pool_min` of the mass of all pools."""
    competes = cells.pool != NONE
    pool = np.where(competes, cells.pool, 0)
    masses = _by_group(cells.span, pool, np.where(competes, cells.mass, 0.0), n_spans)
    strong = masses >= pool_min * masses.sum(axis=1, keepdims=True)
    in_strong: Mask = competes & strong[cells.span, pool]
    return in_strong


def _by_group(span: Indices, group: Indices, values: Float64, n_spans: int) -> Float64:
    """Sums of values by span and by pool or bucket, [S, 5]."""
    return _sums(span * _MAX_GROUPS + group, values, n_spans * _MAX_GROUPS).reshape(
        n_spans, _MAX_GROUPS
    )


def _sums(place: Indices, values: Float64, n_places: int) -> Float64:
    """The sum of the values of each place, added in their order; [n_places] or longer."""
    # For empty input bincount returns integers.
    return np.bincount(place, values, n_places).astype(np.float64, copy=False)


def _take_until_covered(
    eligible: Indices,
    cells: _Cells,
    score: Float64,
    votes: Float64,
    total: Float64,
    coverage: float,
) -> Indices:
    """In each span and vote set, the cells of highest score that cover `coverage` of the votes."""
    if not len(eligible):
        return eligible
    span, set_ = cells.span[eligible], cells.set[eligible]
    order = np.lexsort((cells.unit[eligible], -score[eligible], set_, span))
    ranked, group = eligible[order], (span * _MAX_GROUPS + set_)[order]
    begins = np.ones(len(ranked), dtype=np.bool_)
    begins[1:] = group[1:] != group[:-1]
    # One row of a table per group, so that the sums of each group start at 0.
    row = np.cumsum(begins) - 1
    column = np.arange(len(ranked)) - np.flatnonzero(begins)[row]
    table = np.zeros((row[-1] + 1, column.max() + 1))
    table[row, column] = votes[ranked]
    covered = table.cumsum(axis=1)
    before = np.where(column > 0, covered[row, column - 1], 0.0)
    return ranked[begins | (before / total[ranked] < coverage)]
