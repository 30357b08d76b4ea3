"""Curate the traced samples of a chunk; a run does it, and `omnitrace curate` does it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from omnitrace_core.attribution.curation import (
    CurationInput,
    CurationResult,
    curate_many,
    unit_kinds,
)
from omnitrace_core.attribution.heatmaps import HeatMap, span_heatmaps
from omnitrace_core.options import CurationOptions, TraceOptions, UnitOptions
from omnitrace_core.records import Fold, Segmentation
from stages.arrow.chunk import StateRow
from stages.guards.row_guard import RowError, guarded

CutSpans = Callable[[StateRow], Segmentation]
AnalyseBatch = Callable[[list[str]], None]


@dataclass(frozen=True, slots=True)
class CuratedSample:
    """A curated sample; the sources of its spans are in `ChunkCuration.spans`."""

    segmentation: Segmentation
    heatmaps: tuple[HeatMap, ...]
    curate_s: float


# None for a sample with an error of an earlier stage.
SampleResult = CuratedSample | RowError | None


@dataclass(frozen=True, slots=True)
class ChunkCuration:
    """The result of each sample of a chunk, and the sources of all spans of curated samples."""

    results: Sequence[SampleResult]
    spans: CurationResult

    @property
    def curated(self) -> dict[int, CuratedSample]:
        """The curated samples by their index in the chunk, in order."""
        return {i: item for i, item in enumerate(self.results) if isinstance(item, CuratedSample)}


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A sample that is ready to be curated."""

    input: CurationInput
    heatmaps: tuple[HeatMap, ...]
    prepare_s: float


PreparedSamples = Mapping[int, _Prepared | RowError]  # by index in the chunk


class Curator:
    """Curates the first signal of each sample, and draws its heat maps if `trace.heatmaps` is set.

    stage: the stage that errors are recorded for. cut_spans: cuts a sample's response into spans.
    analyse_batch: analyses all responses at once before `cut_spans` needs them, which is faster.
    """

    def __init__(
        self,
        stage: str,
        cut_spans: CutSpans,
        curation: CurationOptions,
        trace: TraceOptions,
        units: UnitOptions,
        analyse_batch: AnalyseBatch | None = None,
    ) -> None:
        self._stage = stage
        self._cut_spans = cut_spans
        self._analyse_batch = analyse_batch
        self._trace = trace
        self._pos_weighting = curation.pos_weighting
        self._curate_many = partial(
            curate_many,
            options=curation,
            projection=trace.projection,
            instructions=units.instructions,
        )

    def __call__(self, rows: Sequence[StateRow]) -> ChunkCuration:
        """Curate the samples that have no error; a failure costs only its own sample."""
        started = time.perf_counter()
        if self._analyse_batch is not None and self._trace.enabled:
            responses = [row.response for row in rows if not row.failed]
            # A failure here is raised again by the sample that causes it.
            guarded(self._stage, "analysing responses", partial(self._analyse_batch, responses))
        shared_s = time.perf_counter() - started
        prepared: dict[int, _Prepared | RowError] = {
            row.index: guarded(self._stage, row.row_key, partial(self._prepare, row))
            for row in rows
            if not row.failed
        }
        started = time.perf_counter()
        spans = guarded(self._stage, f"{len(prepared)} samples", partial(self._curate, prepared))
        if isinstance(spans, RowError):
            # An unexpected error does not say which sample caused it: try them one by one.
            for i, item in list(prepared.items()):
                alone = guarded(self._stage, rows[i].row_key, partial(self._curate, {i: item}))
                prepared[i] = alone if isinstance(alone, RowError) else item
            spans = self._curate(prepared)
        shared_s += time.perf_counter() - started
        share_s = shared_s / max(len(prepared), 1)
        results = [_result(prepared.get(row.index), share_s) for row in rows]
        return ChunkCuration(results, spans)

    def _prepare(self, row: StateRow) -> _Prepared:
        """The steps that are done sample by sample."""
        started = time.perf_counter()
        if not self._trace.enabled:
            return _Prepared(_NO_TOKENS, (), 0.0)
        segmentation = self._cut_spans(row)
        fold = row.fold(self._trace.signals[0])
        heatmaps = self._heatmaps(row, segmentation) if self._trace.heatmaps else ()
        input_ = CurationInput(fold, row.unit_kinds, segmentation)
        return _Prepared(input_, heatmaps, time.perf_counter() - started)

    def _curate(self, prepared: PreparedSamples) -> CurationResult:
        return self._curate_many(
            [item.input for item in prepared.values() if isinstance(item, _Prepared)]
        )

    def _heatmaps(self, row: StateRow, segmentation: Segmentation) -> tuple[HeatMap, ...]:
        positions = row.positions
        if positions is None or not segmentation.spans:
            return ()
        return span_heatmaps(
            positions.rows[self._trace.signals[0]],
            positions.prompt,
            segmentation,
            pos_weighting=self._pos_weighting,
        )


def _result(item: _Prepared | RowError | None, share_s: float) -> SampleResult:
    if not isinstance(item, _Prepared):
        return item
    return CuratedSample(item.input.segmentation, item.heatmaps, item.prepare_s + share_s)


def _no_tokens() -> CurationInput:
    """The input of a sample that was not traced."""
    none = np.zeros(0, np.float32)
    fold = Fold(none.reshape(0, 0), none.reshape(0, 0), none, none)
    return CurationInput(fold, unit_kinds((), ()), Segmentation((), ()))


_NO_TOKENS = _no_tokens()
