"""Find the sources of each span from a fold of tokens by units (paper: Algorithm 1, line 8; A.1).

Symbols, as in the paper:
    t, j            a token of the response; a source unit, which is a column of the fold
    M[t,j], K[t,j]  mass and peak: summed and largest signal of unit j at token t
    w_t             weight of the token's part of speech
    ŝ(t), c_t       the unit the token votes for, and its confidence
    v_t             the vote: w_t * max(c_t, 0) ** gamma
    p_j, r_j        share of a unit, and of its largest contiguous run, in a set of votes

A token votes for one unit of each pool. Votes are counted, and shares computed, within a vote set.
`joint` has one pool and one set. `per_modality` has the pools {text, image}, {audio}, {video
frames} and {video sound}, and counts each modality in a separate set, as the published release
does: tokens that voted for another modality are not in the set, so they do not interrupt its runs.

Sums are float64 and are added in token order, so stored traces give the same bytes again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.attribution.votes import NONE, ChosenSources, SampleVotes, choose_sources
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
Indices = NDArray[np.intp]
Projection = Literal["mass", "peak"]
Instructions = Literal["exclude", "include"]

# Paper, A.1. ANY is a word of a language without a tagger (see `text.language`): all such words
# have the same weight.
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

BUCKETS = ("text", "image", "audio", "video", "instruction", "markup", "uncovered", "generated")

_STREAMS = ("text", "image", "audio", "video", "sound")
_POOLS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "joint": (_STREAMS,),
    "per_modality": (("text", "image"), ("audio",), ("video",), ("sound",)),
}
_POOL_OF_STREAM: Mapping[str, Indices] = {
    name: np.array([next(i for i, pool in enumerate(pools) if s in pool) for s in _STREAMS])
    for name, pools in _POOLS.items()
}
# The bucket of a unit's mass, by its stream (row) and by whether it is an instruction (column). The
# sound of a video counts as video.
_BUCKET_OF_STREAM: Indices = np.array([[0, 4], [1, 4], [2, 4], [3, 4], [3, 4]], dtype=np.intp)


@dataclass(frozen=True, slots=True)
class UnitKinds:
    """What curation needs to know of a sample's units, [n_units] each.

    stream: index in (text, image, audio, video, sound). instructs: whether it is an instruction.
    """

    stream: Indices
    instructs: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, units: slice) -> UnitKinds:
        return UnitKinds(self.stream[units], self.instructs[units])


@dataclass(frozen=True, slots=True)
class CurationInput:
    """One sample to curate: one signal's fold, the units, and the spans with tags."""

    fold: Fold
    units: UnitKinds
    segmentation: Segmentation


@dataclass(frozen=True, slots=True)
class CurationResult:
    """The result for the S spans of several samples, in their order.

    supported, confidence: [S]. masses: [S, 8], in the order of BUCKETS. chosen: the sources.
    """

    supported: NDArray[np.bool_]
    confidence: Float64
    masses: Float64
    chosen: ChosenSources


def curate(
    fold: Fold,
    units: Sequence[SourceUnit],
    segmentation: Segmentation,
    options: CurationOptions,
    projection: Projection = "mass",
    instructions: Instructions = "exclude",
) -> tuple[Attribution, ...]:
    """The sources of each span of a response.

    `Source.rank` counts from 1 by falling mass. Ties always go to the lower unit index. A token
    without mass on a pool casts no vote there, whatever the options are. A span whose tokens all
    have weight 0 (punctuation only) has no votes, confidence 0, and unweighted means as masses. A
    supported span may have no source: if its votes are too scattered for the filter, or its pools
    have too little mass.

    Raises:
        TraceError: the fold, the units and the tags do not describe the same sample.
    """
    kinds = unit_kinds([unit.kind for unit in units], [unit.modality for unit in units])
    sample = CurationInput(fold, kinds, segmentation)
    result = curate_many([sample], options, projection, instructions)
    sources = _sources(result.chosen, units)
    return tuple(
        Attribution(
            span=span,
            outcome="supported" if result.supported[i] else "unsupported",
            confidence=float(result.confidence[i]),
            masses=dict(zip(BUCKETS, result.masses[i].tolist(), strict=True)),
            sources=tuple(next(sources) for _ in range(result.chosen.n_sources[i])),
        )
        for i, span in enumerate(segmentation.spans)
    )


def _sources(chosen: ChosenSources, units: Sequence[SourceUnit]) -> Iterator[Source]:
    columns = (chosen.unit, chosen.mass, chosen.share, chosen.run, chosen.score)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for n_sources in chosen.n_sources:
        for rank in range(1, n_sources + 1):
            j, mass, share, run, score = next(rows)
            yield Source(units[j], mass, share, run, score, rank)


def curate_many(
    samples: Sequence[CurationInput],
    options: CurationOptions,
    projection: Projection = "mass",
    instructions: Instructions = "exclude",
) -> CurationResult:
    """Like `curate`, for many samples at once and without an object per source.

    The result for a sample is the same, to the last bit, whatever other samples are curated with
    it.

    Raises:
        TraceError: the fold, the units and the tags of an input do not describe the same sample.
    """
    votes, other_masses, confidences = [], [np.zeros((0, 3))], [np.zeros(0)]
    for sample in samples:
        _check_shapes(sample)
        weights = pos_weights(sample.segmentation.pos, options.pos_weighting)
        signal = sample.fold.mass if projection == "mass" else sample.fold.peak
        pool_of = _pools(sample.units, options.pools, instructions)
        unit, confidence = _project(signal, pool_of, len(_POOLS[options.pools]))
        spans, m = sample.segmentation.spans, len(sample.units)
        means = span_means(_side_by_side(sample.fold, confidence), weights, spans)
        other_masses.append(means[:, m : m + 3])
        confidences.append(means[:, m + 3 :].max(axis=1, initial=0.0))
        instructs = sample.units.instructs.astype(int)
        votes.append(
            SampleVotes(
                unit=unit,
                confidence=confidence,
                weight=weights,
                spans=spans,
                mass=means[:, :m],
                set_of=sample.units.stream if options.pools == "per_modality" else 0 * pool_of,
                pool_of=pool_of,
                bucket_of=_BUCKET_OF_STREAM[sample.units.stream, instructs],
            )
        )
    chosen = choose_sources(votes, options)
    span_confidence = np.where(chosen.voted, np.concatenate(confidences), 0.0)
    return CurationResult(
        supported=chosen.voted & (span_confidence >= options.min_confidence),
        confidence=span_confidence,
        masses=np.hstack([chosen.masses, np.concatenate(other_masses)]),
        chosen=chosen,
    )


def unit_kinds(kinds: Sequence[str], modalities: Sequence[str]) -> UnitKinds:
    """The `UnitKinds` of units, from the kind and the modality of each."""
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

    values: [n_gen, n_columns]; weights: [n_gen]. Returns [n_spans, n_columns] float64: the
    unweighted mean for a span whose tokens all have weight 0, zeros for a span without tokens.
    """
    n_gen, n_columns = values.shape
    # The weights are summed in an extra column. The extra row lets reduceat take n_gen as an index,
    # for spans that end with the last token.
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


def _check_shapes(sample: CurationInput) -> None:
    tags, units = len(sample.segmentation.pos), len(sample.units)
    if sample.fold.mass.shape != (tags, units):
        raise TraceError(
            f"the fold is {list(sample.fold.mass.shape)} (tokens x units), but there are {tags} "
            f"tagged tokens and {units} units; take the fold, the tags and the units from the same "
            "trace"
        )


def _pools(units: UnitKinds, pooling: str, instructions: str) -> Indices:
    """The pool in which each unit competes, [n_units], NONE if it cannot be a source.

    Instructions compete as text if they are included.
    """
    pool_of = _POOL_OF_STREAM[pooling][units.stream]
    return pool_of if instructions == "include" else np.where(units.instructs, NONE, pool_of)


def _project(signal: Float32, pool_of: Indices, n_pools: int) -> tuple[Indices, Float64]:
    """The unit with the largest signal in each pool, and that signal; both [n_pools, n_gen].

    Paper, Algorithm 1, lines 7-8.
    """
    tokens = np.arange(len(signal))
    unit = np.full((n_pools, len(tokens)), NONE, dtype=np.intp)
    confidence = np.zeros(unit.shape)
    for pool in range(n_pools):
        members = np.flatnonzero(pool_of == pool)
        if len(members):
            of_pool = signal if len(members) == len(pool_of) else signal[:, members]
            best = of_pool.argmax(axis=1)
            unit[pool], confidence[pool] = members[best], of_pool[tokens, best]
    return unit, confidence


def _side_by_side(fold: Fold, confidence: Float64) -> Float64:
    """[n_gen, n_units + 3 + n_pools]: masses, the last three BUCKETS, and c_t of each pool."""
    n_gen, n_units = fold.mass.shape
    columns = np.empty((n_gen, n_units + 3 + len(confidence)))
    columns[:, :n_units] = fold.mass
    columns[:, n_units] = fold.markup
    columns[:, n_units + 1] = fold.uncovered
    columns[:, n_units + 2] = fold.generated
    columns[:, n_units + 3 :] = confidence.T
    return columns
