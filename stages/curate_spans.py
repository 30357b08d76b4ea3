"""Last stage before the commit: token traces -> spans with their sources, and finished records."""

from __future__ import annotations

import time
from functools import partial

import pyarrow as pa

from omnitrace_core.curation import curate
from omnitrace_core.options import CurationOptions, SpanOptions, TraceOptions, UnitOptions
from omnitrace_core.spans import Segmenter
from stages.assemble import Finished, Provenance, assemble, span_rows, trace_rows
from stages.chunk import StateRow, rows_of, state_rows, with_rows
from stages.guard import guarded

STAGE = "curate_spans"


class CurateSpans:
    """Cuts responses into spans, curates the first signal, and lays out what the tables hold."""

    def __init__(
        self,
        spans: SpanOptions,
        curation: CurationOptions,
        trace: TraceOptions,
        units: UnitOptions,
        provenance: Provenance,
    ) -> None:
        self._segmenter = Segmenter(spans)
        self._curation = curation
        self._trace = trace
        self._instructions = units.instructions
        self._provenance = provenance

    def __call__(self, table: pa.Table) -> pa.Table:
        """One chunk of STATE rows in, the same samples as RECORD rows out."""
        finished = [
            None if row.failed else guarded(STAGE, row.row_key, partial(self._finish, row))
            for row in state_rows(table)
        ]
        return with_rows(table, assemble(rows_of(table), finished, self._provenance))

    def _finish(self, row: StateRow) -> Finished:
        started = time.perf_counter()
        trace, units, sample_id = row.trace, row.units, row.sample_id
        if not self._trace.enabled:
            return Finished([], [], (), time.perf_counter() - started)
        segmentation = self._segmenter.segment(trace.response, trace.char_spans)
        signal = self._trace.signals[0]
        attributions = curate(
            trace.folds[signal],
            units,
            segmentation,
            self._curation,
            self._trace.projection,
            self._instructions,
        )
        stored = (
            trace_rows(sample_id, row.row_key, trace, segmentation, len(units))
            if self._trace.store == "units"
            else []
        )
        spans = span_rows(sample_id, row.row_key, signal, attributions)
        return Finished(spans, stored, segmentation.notes, time.perf_counter() - started)
