"""Counting the votes of many samples at once (paper, A.1), in arrays instead of span by span.

Symbols: S spans of all samples together; their cells, one for each span and unit of its sample.
Sums are float64 and taken in token order within a cell, so what comes out for a sample does not
depend on the samples beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.options import CurationOptions
from omnitrace_core.records import Span

Float64 = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

NOBODY = -1
# Vote sets, pools and buckets of units are numbered below this.
_MOST = 5


@dataclass(frozen=True, slots=True)
class Ballots:
    """What the tokens of one sample chose, and what else curation takes of it.

    unit, confidence: [n_pools, n_gen], ŝ(t) and c_t in each pool, NOBODY and 0 if it has no units.
    weight: [n_gen], w_t. spans: of its response, in order. mass: [n_spans, n_units], mean M[t,j].
    set_of, pool_of, bucket_of: [n_units], the set that a unit's votes are counted in, the pool it
    competes in (NOBODY if it cannot be a source), and the bucket of its mass.
    """

    unit: Index
    confidence: Float64
    weight: Float64
    spans: Sequence[Span]
    mass: Float64
    set_of: Index
    pool_of: Index
    bucket_of: Index


@dataclass(frozen=True, slots=True)
class Tally:
    """The sources of S spans.

    voted: [S], whether a token of the span cast a vote. n_sources: [S]. masses: [S, 5], by bucket.
    Of each source, span by span, by falling mass: unit (its index in its sample) and its numbers.
    """

    voted: Mask
    masses: Float64
    n_sources: Index
    unit: Index
    mass: Float64
    share: Float64
    run: Float64
    score: Float64


@dataclass(frozen=True, slots=True)
class _Cells:
    """Span and unit of each cell, and what the unit is. begin: [S], the first cell of a span."""

    begin: Index
    span: Index
    unit: Index
    set: Index
    pool: Index
    bucket: Index
    mass: Float64


def count(ballots: Sequence[Ballots], options: CurationOptions) -> Tally:
    """Count the votes of all spans and choose their sources."""
    n_spans = sum(len(item.spans) for item in ballots)
    cells = _cells(ballots)
    n_cells = len(cells.span)
    cell, group, vote = _cast(ballots, cells, options)
    votes = _sums(cell, vote, n_cells)
    total = _sums(group, vote, n_spans * _MOST)[cells.span * _MOST + cells.set]
    divisor = np.where(total > 0, total, 1.0)
    share, run = votes / divisor, _longest_runs(cell, vote, n_cells) / divisor
    score = options.alpha * share + (1 - options.alpha) * run if options.runs else share

    enough = share >= options.p_min
    if options.runs:
        enough |= run >= options.run_min
    admitted = enough & (votes > 0) & _audible(cells, n_spans, options.pool_min)
    taken = _walk(np.flatnonzero(admitted), cells, score, votes, total, options.coverage)
    taken = taken[np.lexsort((cells.unit[taken], -cells.mass[taken], cells.span[taken]))]
    return Tally(
        voted=_sums(cells.span, votes, n_spans) > 0,
        masses=_by_group(cells.span, cells.bucket, cells.mass, n_spans),
        n_sources=np.bincount(cells.span[taken], minlength=n_spans),
        unit=cells.unit[taken],
        mass=cells.mass[taken],
        share=share[taken],
        run=run[taken],
        score=score[taken],
    )


def _cells(ballots: Sequence[Ballots]) -> _Cells:
    n_units = np.array([len(item.set_of) for item in ballots], dtype=np.intp)
    n_spans = np.array([len(item.spans) for item in ballots], dtype=np.intp)
    width = np.repeat(n_units, n_spans)
    begin = np.cumsum(width) - width
    span = np.repeat(np.arange(len(width)), width)
    unit = np.arange(len(span)) - begin[span]
    # Of all samples' units one behind another: those of the cell's sample begin here.
    first = np.repeat(np.cumsum(n_units) - n_units, n_spans)
    of_all = first[span] + unit
    return _Cells(
        begin=begin,
        span=span,
        unit=unit,
        set=_joined([item.set_of for item in ballots])[of_all],
        pool=_joined([item.pool_of for item in ballots])[of_all],
        bucket=_joined([item.bucket_of for item in ballots])[of_all],
        mass=np.concatenate([np.zeros(0), *(item.mass.ravel() for item in ballots)]),
    )


def _joined(arrays: Sequence[Index]) -> Index:
    return np.concatenate([np.zeros(0, dtype=np.intp), *arrays])


def _cast(
    ballots: Sequence[Ballots], cells: _Cells, options: CurationOptions
) -> tuple[Index, Index, Float64]:
    """All ballots cast inside spans, set by set in token order: their cell, group and vote v.

    A group is a span's set.
    """
    if not ballots:
        nothing = np.zeros(0, dtype=np.intp)
        return nothing, nothing, np.zeros(0)
    span_of = _spans_of_tokens(ballots)
    unit = np.concatenate([item.unit for item in ballots], axis=1)
    c = np.maximum(np.concatenate([item.confidence for item in ballots], axis=1), 0.0)
    weight = np.concatenate([item.weight for item in ballots])
    strength = c**options.gamma if options.confidence else np.ones_like(c)
    vote = np.where(c > 0, weight * strength, 0.0)
    pool, token = np.nonzero((unit != NOBODY) & (span_of != NOBODY))
    span = span_of[token]
    cell = cells.begin[span] + unit[pool, token]
    set_ = cells.set[cell]
    order = np.argsort(set_, kind="stable")
    return cell[order], (span * _MOST + set_)[order], vote[pool, token][order]


def _spans_of_tokens(ballots: Sequence[Ballots]) -> Index:
    """The span of each token of all samples, NOBODY for one between spans."""
    n_tokens = [len(item.weight) for item in ballots]
    span_of = np.full(sum(n_tokens), NOBODY, dtype=np.intp)
    index = first = 0
    for item, n in zip(ballots, n_tokens, strict=True):
        for span in item.spans:
            span_of[first + span.token_start : first + span.token_end] = index
            index += 1
        first += n
    return span_of


def _longest_runs(cell: Index, vote: Float64, n_cells: int) -> Float64:
    """The largest sum of votes over consecutive ballots for one and the same cell, [n_cells]."""
    begins = np.ones(len(cell), dtype=np.bool_)
    begins[1:] = cell[1:] != cell[:-1]
    runs = _sums(np.cumsum(begins) - 1, vote, 0)
    longest = np.zeros(n_cells)
    np.maximum.at(longest, cell[begins], runs)
    return longest


def _audible(cells: _Cells, n_spans: int, pool_min: float) -> Mask:
    """[n_cells]: units of a pool with at least `pool_min` of the mass of its span's pools."""
    competes = cells.pool != NOBODY
    pool = np.where(competes, cells.pool, 0)
    masses = _by_group(cells.span, pool, np.where(competes, cells.mass, 0.0), n_spans)
    loud = masses >= pool_min * masses.sum(axis=1, keepdims=True)
    audible: Mask = competes & loud[cells.span, pool]
    return audible


def _by_group(span: Index, group: Index, values: Float64, n_spans: int) -> Float64:
    """Sums of values by span and group, [S, 5]."""
    return _sums(span * _MOST + group, values, n_spans * _MOST).reshape(n_spans, _MOST)


def _sums(place: Index, values: Float64, n_places: int) -> Float64:
    """The sum of the values of each place, added in their order; [n_places] or longer."""
    # Of nothing, bincount counts in integers.
    return np.bincount(place, values, n_places).astype(np.float64, copy=False)


def _walk(
    admitted: Index,
    cells: _Cells,
    score: Float64,
    votes: Float64,
    total: Float64,
    coverage: float,
) -> Index:
    """Cells taken span by span and set by set in falling score until they cover the set's votes."""
    if not len(admitted):
        return admitted
    span, set_ = cells.span[admitted], cells.set[admitted]
    order = np.lexsort((cells.unit[admitted], -score[admitted], set_, span))
    walked, group = admitted[order], (span * _MOST + set_)[order]
    opens = np.ones(len(walked), dtype=np.bool_)
    opens[1:] = group[1:] != group[:-1]
    # A row per group, so that each adds up from its own first.
    row = np.cumsum(opens) - 1
    place = np.arange(len(walked)) - np.flatnonzero(opens)[row]
    table = np.zeros((row[-1] + 1, place.max() + 1))
    table[row, place] = votes[walked]
    covered = table.cumsum(axis=1)
    before = np.where(place > 0, covered[row, place - 1], 0.0)
    return walked[opens | (before / total[walked] < coverage)]
