"""Chunks of a published run curated again with other settings: stored rows in, RECORD rows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.errors import TraceError
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import (
    AsrOptions,
    CurationOptions,
    MediaOptions,
    SpanOptions,
    TraceOptions,
    UnitOptions,
)
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Segmentation
from omnitrace_core.text.language import load_language_without_torch
from omnitrace_core.text.spans import Segmenter
from stages.arrow.chunk import StateRow, error_fields, views
from stages.arrow.columns import lists, replaced, take
from stages.arrow.stored_chunk import StoredChunk
from stages.arrow.table_schema import CHUNK_FILE, HEATMAPS, SAMPLES, SCHEMA_VERSION, SPANS, TRACES
from stages.guards.row_guard import RowError, guarded
from stages.records.assemble import as_records, errors_of
from stages.records.columns import kept_tables, record_columns
from stages.records.curator import Curation, Curator, Finished, Outcome
from stages.refold_units import Refolded, UnitRefolder, with_folds

STAGE = "curate"


@dataclass(frozen=True, slots=True)
class Settings:
    """Those settings of a run on which its records depend behind the model."""

    trace: TraceOptions
    units: UnitOptions
    spans: SpanOptions
    curation: CurationOptions
    asr: AsrOptions
    media: MediaOptions


@dataclass(frozen=True, slots=True)
class Change:
    """From the settings of a run to those it is curated with again."""

    old: Settings
    new: Settings

    @property
    def segments(self) -> bool:
        """Whether responses are cut into spans again; otherwise their spans are the stored ones."""
        return self.old.spans != self.new.spans

    @property
    def listens(self) -> bool:
        """Whether speech is looked for again."""
        chunks = self.new.units.audio == "chunks"
        return chunks and (self.old.units.audio != "chunks" or self.old.asr != self.new.asr)

    @property
    def folds(self) -> bool:
        """Whether units are cut and folded again; for that a run must have kept positions."""
        plain = {"instructions": "exclude"}
        old, new = (item.units.model_copy(update=plain) for item in (self.old, self.new))
        # Text is cut into units by the same pipeline that cuts responses into spans.
        recut = old != new or self.old.spans.pipeline != self.new.spans.pipeline
        return self.old.trace.store == "positions" and (recut or self.listens)

    @property
    def draws(self) -> bool:
        """Whether heat maps are drawn, from stored positions."""
        return self.new.trace.heatmaps and self.old.trace.store == "positions"

    @property
    def keeps_heatmaps(self) -> bool:
        """Whether heat maps are taken over as they are stored."""
        return self.new.trace.heatmaps and not self.draws

    @property
    def rewrites_traces(self) -> bool:
        """Whether traces/ will hold anything else than it does."""
        old, new = self.old.trace, self.new.trace
        told = (old.signals, old.store) != (new.signals, new.store)
        return "traces" in kept_tables(new) and (told or self.segments or self.folds)

    def columns(self, *, traces: bool) -> dict[str, list[str]]:
        """The columns to read by table. traces: whether traces/ is written anew."""
        wanted = {"samples": SAMPLES.names}
        if not self.segments:
            wanted["spans"] = SPANS.names
        if self.keeps_heatmaps:
            wanted["heatmaps"] = HEATMAPS.names
        positions = {"n_positions", "rows", "prompt"}
        # The rows over positions are by far the most of a run.
        if self.folds or self.draws or (traces and self.new.trace.store == "positions"):
            positions = set()
        left_out = positions if traces or self.segments or self.folds else positions | _UNUSED
        if self.new.trace.projection == "peak":
            left_out = left_out - {"peak"}
        wanted["traces"] = [name for name in TRACES.names if name not in left_out]
        return wanted


# Of traces/, where all that is done is to curate its folds.
_UNUSED = {
    *("sample_id", "n_tokens", "n_units", "token_ids", "tokens", "char_starts", "char_ends"),
    *("logprobs", "peak", "schema_version"),
}


class Recurate:
    """Does chunks of a published run again from where the model left off.

    fingerprint: of the records that come out. traces: whether these hold rows of traces/.
    """

    def __init__(
        self, change: Change, rules: MediaRules, fingerprint: str, *, traces: bool
    ) -> None:
        old, new = change.old, change.new
        self._change = change
        self._fingerprint = fingerprint
        if change.segments or change.folds:
            load_language_without_torch(new.spans.pipeline)
        self._segmenter = Segmenter(new.spans) if change.segments else None
        # What is made anew: heat maps and traces may be taken over as they are stored.
        made = {"heatmaps": change.draws, "store": new.trace.store if traces else "none"}
        self._trace = new.trace.model_copy(update=made)
        options = ReadingOptions(rules, new.media, new.units, new.asr, new.spans)
        reader = SampleReader(options, isolate=True)
        signals = new.trace.signals
        self._refolder = UnitRefolder(reader, old.units, signals, listens=change.listens)

    def __call__(self, chunk: StoredChunk) -> pa.Table:
        """The samples, each of them once, in the schema of CHUNK_FILE.

        Raises:
            RunError: the tables of the run do not belong together.
        """
        refolded: dict[int, Refolded] = {}
        rows = chunk.state()
        if self._change.folds:
            rows, refolded = self._refold(rows)
        stored = chunk.segmentations()
        new = self._change.new

        def segment(row: StateRow) -> Segmentation:
            _check_signals(chunk.signals(row.index), new.trace.signals)
            return self._segment(stored, row)

        read_ahead = self._segmenter.analyse_batch if self._segmenter else None
        curator = Curator(STAGE, segment, new.curation, self._trace, new.units, read_ahead)
        curation = curator(views(rows))
        columns = record_columns(rows, curation, self._trace)
        if self._change.keeps_heatmaps:
            columns["heatmaps"] = _stored_heatmaps(chunk, curation)
        notes = self._notes(chunk, curation.finished, refolded)
        samples = self._samples(chunk, rows, curation.outcomes, notes)
        return pa.Table.from_struct_array(as_records(samples, columns)).cast(CHUNK_FILE)

    def _segment(self, stored: Sequence[Segmentation | None], row: StateRow) -> Segmentation:
        known = stored[row.index]
        if self._segmenter is not None:
            return self._segmenter.segment(row.response, row.char_spans)
        if known is None:
            raise TraceError("nothing is stored of how this response was cut into spans")
        return known

    def _refold(self, rows: pa.StructArray) -> tuple[pa.StructArray, dict[int, Refolded]]:
        results = {
            row.index: guarded(STAGE, row.row_key, partial(self._refolder.refold, row))
            for row in views(rows)
            if not row.failed
        }
        refolded = {i: item for i, item in results.items() if isinstance(item, Refolded)}
        rows = with_folds(rows, refolded, self._trace.signals)
        errors = rows.field("error").to_pylist()
        for i, item in results.items():
            if isinstance(item, RowError):
                errors[i] = error_fields(item)
        return replaced(rows, {"error": errors}), refolded

    def _samples(
        self,
        chunk: StoredChunk,
        rows: pa.StructArray,
        outcomes: Sequence[Outcome],
        notes: pa.Array,
    ) -> pa.StructArray:
        """Rows of samples/ as they were, but for what has changed."""
        errors = errors_of(rows, outcomes)
        was_error = pc.equal(chunk.samples.field("status"), "error")
        timings = chunk.samples.field("timings")
        curate_s = [
            item.curate_s if isinstance(item, Finished) else before
            for item, before in zip(outcomes, timings.field("curate_s").to_pylist(), strict=True)
        ]
        columns = {
            "status": ["ok" if error is None else "error" for error in errors],
            "error_stage": [error.stage if error else "" for error in errors],
            "error_code": [error.code if error else "" for error in errors],
            "message": [error.message if error else "" for error in errors],
            "units": rows.field("units"),
            "notes": notes,
            "timings": replaced(timings, {"curate_s": curate_s}),
            "fingerprint": pc.if_else(
                was_error, chunk.samples.field("fingerprint"), self._fingerprint
            ),
            "schema_version": [SCHEMA_VERSION] * len(errors),
        }
        return replaced(chunk.samples, columns)

    def _notes(
        self,
        chunk: StoredChunk,
        finished: Mapping[int, Finished],
        refolded: Mapping[int, Refolded],
    ) -> pa.Array | list[list[str]]:
        """The samples' notes with those of steps that were done again in place of the old ones."""
        stored = chunk.samples.field("notes")
        if not self._change.segments and not refolded:
            return stored
        told: list[list[str]] = stored.to_pylist()
        before_of = chunk.segmentations()
        for i, item in finished.items():
            before = before_of[i]
            if before is not None:
                kept = told[i][: len(told[i]) - len(before.notes)]
                if i in refolded:
                    gone = refolded[i].old_notes
                    kept = [*(note for note in kept if note not in gone), *refolded[i].notes]
                told[i] = [*kept, *item.segmentation.notes]
        return told


def _check_signals(stored: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises: TraceError."""
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise TraceError(
            f"traces/ holds the signals {list(stored)} of this sample, not {missing}: its shard is "
            "damaged or of another run; run again"
        )


def _stored_heatmaps(chunk: StoredChunk, curation: Curation) -> pa.ListArray:
    """The rows of heatmaps/ of all samples that are not errors."""
    bounds = chunk.bounds(chunk.heatmaps).tolist()
    counts = {i: bounds[i + 1] - bounds[i] for i in curation.finished}
    where = [row for i in counts for row in range(bounds[i], bounds[i + 1])]
    kept = take(chunk.heatmaps, np.array(where, np.int64))
    return lists(counts, len(curation.outcomes), kept)
