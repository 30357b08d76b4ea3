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

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.attribution.votes import NOBODY, Ballots, Tally, count
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
Projection = Literal["mass", "peak"]
Instructions = Literal["exclude", "include"]

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
_WEIGHT_OF = defaultdict(lambda: OTHER_POS_WEIGHT, POS_WEIGHTS)

BUCKETS = ("text", "image", "audio", "video", "instruction", "markup", "generated")

_STREAMS = ("text", "image", "audio", "video", "sound")
_POOLS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "joint": (_STREAMS,),
    "per_modality": (("text", "image"), ("audio",), ("video",), ("sound",)),
}
_POOL_OF_STREAM: Mapping[str, Index] = {
    name: np.array([next(i for i, pool in enumerate(pools) if s in pool) for s in _STREAMS])
    for name, pools in _POOLS.items()
}
# The bucket of a unit's mass, by its stream and by whether it instructs; sound counts as video.
_BUCKET_OF_STREAM: Index = np.array([[0, 4], [1, 4], [2, 4], [3, 4], [3, 4]], dtype=np.intp)


@dataclass(frozen=True, slots=True)
class UnitKinds:
    """All that curation has to know of a sample's units, [n_units] each.

    stream: index in text, image, audio, video, sound. instructs: whether it is an instruction.
    """

    stream: Index
    instructs: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, units: slice) -> UnitKinds:
        return UnitKinds(self.stream[units], self.instructs[units])


@dataclass(frozen=True, slots=True)
class Case:
    """One sample to be curated."""

    fold: Fold
    units: UnitKinds
    segmentation: Segmentation


@dataclass(frozen=True, slots=True)
class Curated:
    """What became of the S spans of some samples, in their order.

    supported, confidence: [S]. masses: [S, 7], in the order of BUCKETS. tally: the sources.
    """

    supported: NDArray[np.bool_]
    confidence: Float64
    masses: Float64
    tally: Tally


def curate(
    fold: Fold,
    units: Sequence[SourceUnit],
    segmentation: Segmentation,
    options: CurationOptions,
    projection: Projection = "mass",
    instructions: Instructions = "exclude",
) -> tuple[Attribution, ...]:
    """The sources of each span of a response (DESIGN section 2).

    `Source.rank` counts from 1 by falling mass. Ties go to the lower unit index everywhere.
    A token without mass on a pool casts no vote there, whatever the switches say. A span without a
    weighty token (punctuation alone) has no votes, confidence 0, and plain means for masses. A
    supported span may name no source: its votes too scattered for the filter, its pools too faint.

    Raises:
        TraceError: the fold, the units and the tags do not describe the same sample.
    """
    kinds = unit_kinds([unit.kind for unit in units], [unit.modality for unit in units])
    case = Case(fold, kinds, segmentation)
    found = curate_many([case], options, projection, instructions)
    sources = _sources(found.tally, units)
    return tuple(
        Attribution(
            span=span,
            outcome="supported" if found.supported[i] else "unsupported",
            confidence=float(found.confidence[i]),
            masses=dict(zip(BUCKETS, found.masses[i].tolist(), strict=True)),
            sources=tuple(next(sources) for _ in range(found.tally.n_sources[i])),
        )
        for i, span in enumerate(segmentation.spans)
    )


def _sources(tally: Tally, units: Sequence[SourceUnit]) -> Iterator[Source]:
    columns = (tally.unit, tally.mass, tally.share, tally.run, tally.score)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for n_sources in tally.n_sources:
        for rank in range(1, n_sources + 1):
            j, mass, share, run, score = next(rows)
            yield Source(units[j], mass, share, run, score, rank)


def curate_many(
    cases: Sequence[Case],
    options: CurationOptions,
    projection: Projection = "mass",
    instructions: Instructions = "exclude",
) -> Curated:
    """As `curate`, for many samples at once and without an object per source.

    What comes out for a sample is the same, to the last bit, whatever samples are beside it.

    Raises:
        TraceError: the fold, the units and the tags of a case do not describe the same sample.
    """
    ballots, rest, certainty = [], [np.zeros((0, 2))], [np.zeros(0)]
    for case in cases:
        _check_shapes(case)
        weights = pos_weights(case.segmentation.pos, options.pos_weighting)
        signal = case.fold.mass if projection == "mass" else case.fold.peak
        pool_of = _pools(case.units, options.pools, instructions)
        chosen, confidence = _project(signal, pool_of, len(_POOLS[options.pools]))
        spans, m = case.segmentation.spans, len(case.units)
        means = span_means(_side_by_side(case.fold, confidence), weights, spans)
        rest.append(means[:, m : m + 2])
        certainty.append(means[:, m + 2 :].max(axis=1, initial=0.0))
        ballots.append(
            Ballots(
                unit=chosen,
                confidence=confidence,
                weight=weights,
                spans=spans,
                mass=means[:, :m],
                set_of=case.units.stream if options.pools == "per_modality" else 0 * pool_of,
                pool_of=pool_of,
                bucket_of=_BUCKET_OF_STREAM[case.units.stream, case.units.instructs.astype(int)],
            )
        )
    tally = count(ballots, options)
    sure = np.where(tally.voted, np.concatenate(certainty), 0.0)
    return Curated(
        supported=tally.voted & (sure >= options.min_confidence),
        confidence=sure,
        masses=np.hstack([tally.masses, np.concatenate(rest)]),
        tally=tally,
    )


def unit_kinds(kinds: Sequence[str], modalities: Sequence[str]) -> UnitKinds:
    """What curation has to know of units, from their kinds and modalities."""
    streams = [
        _STREAMS.index("sound" if kind in SOUND_KINDS else modality)
        for kind, modality in zip(kinds, modalities, strict=True)
    ]
    instructs = [kind == "instruction" for kind in kinds]
    return UnitKinds(np.array(streams, dtype=np.intp), np.array(instructs, dtype=np.bool_))


def pos_weights(pos: Sequence[str], weighted: bool = True) -> Float64:
    """Weight w of each part-of-speech tag, [n_gen] float64; all 1 if not `weighted`."""
    if not weighted:
        return np.ones(len(pos))
    return np.fromiter(map(_WEIGHT_OF.__getitem__, pos), np.float64, len(pos))


def span_means(values: NDArray[np.floating], weights: Float64, spans: Sequence[Span]) -> Float64:
    """Weighted mean of each column over each span's tokens: Σ_t w_t x_t / Σ_t w_t.

    values: [n_gen, n_columns]; weights: [n_gen]. Returns [n_spans, n_columns] float64: the plain
    mean for a span whose tokens all weigh 0, zeros for one without tokens.
    """
    n_gen, n_columns = values.shape
    # The weights are summed as one more column; the last row is for spans that end with the last
    # token, whose end has to be a row.
    weighted = np.zeros((n_gen + 1, n_columns + 1))
    np.multiply(weights[:, None], values, out=weighted[:n_gen, :n_columns])
    weighted[:n_gen, n_columns] = weights
    edges = [edge for span in spans for edge in (span.token_start, span.token_end)]
    if not edges:
        return np.zeros((0, n_columns))
    sums = np.add.reduceat(weighted, edges, axis=0)[::2]
    total = sums[:, n_columns]
    means = sums[:, :n_columns] / np.where(total > 0, total, 1.0)[:, None]
    for i, span in enumerate(spans):
        if span.token_start >= span.token_end:
            means[i] = 0.0
        elif total[i] == 0:
            means[i] = values[span.token_start : span.token_end].mean(axis=0, dtype=np.float64)
    return means


def _check_shapes(case: Case) -> None:
    tags, units = len(case.segmentation.pos), len(case.units)
    if case.fold.mass.shape != (tags, units):
        raise TraceError(
            f"the fold is {list(case.fold.mass.shape)} (tokens x units), but there are {tags} "
            f"tagged tokens and {units} units; take the fold, the tags and the units of one and "
            "the same trace"
        )


def _pools(units: UnitKinds, pooling: str, instructions: str) -> Index:
    """The pool each unit competes in, [n_units], NOBODY for none.

    Instructions compete as text, if they are included at all.
    """
    pool_of = _POOL_OF_STREAM[pooling][units.stream]
    return pool_of if instructions == "include" else np.where(units.instructs, NOBODY, pool_of)


def _project(signal: Float32, pool_of: Index, n_pools: int) -> tuple[Index, Float64]:
    """The unit with the largest signal in each pool, and its signal, [n_pools, n_gen] both.

    Paper, Algorithm 1, lines 7-8.
    """
    tokens = np.arange(len(signal))
    unit = np.full((n_pools, len(tokens)), NOBODY, dtype=np.intp)
    confidence = np.zeros(unit.shape)
    for pool in range(n_pools):
        rivals = np.flatnonzero(pool_of == pool)
        if len(rivals):
            of_pool = signal if len(rivals) == len(pool_of) else signal[:, rivals]
            best = of_pool.argmax(axis=1)
            unit[pool], confidence[pool] = rivals[best], of_pool[tokens, best]
    return unit, confidence


def _side_by_side(fold: Fold, confidence: Float64) -> Float64:
    """[n_gen, n_units + 2 + n_pools]: masses, markup, generated, and c_t of each pool."""
    n_gen, n_units = fold.mass.shape
    columns = np.empty((n_gen, n_units + 2 + len(confidence)))
    columns[:, :n_units] = fold.mass
    columns[:, n_units] = fold.markup
    columns[:, n_units + 1] = fold.generated
    columns[:, n_units + 2 :] = confidence.T
    return columns
