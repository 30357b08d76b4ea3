"""Fifth stage: curate token traces to spans with their sources, and build the finished records."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from omnitrace_core.options import CurationOptions, SpanOptions, TraceOptions, UnitOptions
from omnitrace_core.records import Segmentation
from omnitrace_core.text.language import load_language_without_torch
from omnitrace_core.text.spans import Segmenter
from stages.arrow.chunk import StateRow, sample_structs, views, with_rows
from stages.guards.node_guard import naming_node_faults
from stages.records.assemble import Provenance, assemble
from stages.records.curator import Curator

STAGE = "curate_spans"


@dataclass(frozen=True, slots=True)
class CurateOptions:
    """The settings that this stage uses."""

    spans: SpanOptions
    curation: CurationOptions
    trace: TraceOptions
    units: UnitOptions


class CurateSpans:
    """Cuts responses into spans, curates the first signal, and builds the rows of all tables."""

    def __init__(
        self,
        options: CurateOptions,
        provenance: Provenance,
    ) -> None:
        load_language_without_torch(options.spans.pipeline)
        self._segmenter = Segmenter(options.spans)
        self._curator = Curator(
            STAGE,
            self._segment,
            options.curation,
            options.trace,
            options.units,
            self._segmenter.analyse_batch,
        )
        self._trace = options.trace
        self._provenance = provenance

    @naming_node_faults(STAGE)
    def __call__(self, table: pa.Table) -> pa.Table:
        """A chunk of STATE rows to a chunk of RECORD rows, one for each sample."""
        rows = sample_structs(table)
        curation = self._curator(views(rows))
        return with_rows(table, assemble(rows, curation, self._trace, self._provenance))

    def _segment(self, row: StateRow) -> Segmentation:
        return self._segmenter.segment(row.response, row.char_spans)
