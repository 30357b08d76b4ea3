"""Curate chunks of a published run again with other settings, from stored rows to RECORD rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.errors import TraceError
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Segmentation
from omnitrace_core.text.language import load_language_without_torch
from omnitrace_core.text.spans import Segmenter
from stages.arrow.chunk import StateRow, error_fields, views, with_plain_addresses
from stages.arrow.columns import list_array, replace_fields, take
from stages.arrow.stored_chunk import StoredChunk
from stages.arrow.table_schema import CHUNK_FILE, SCHEMA_VERSION
from stages.full_addresses import FullAddresses
from stages.guards.row_guard import RowError, guarded
from stages.records.assemble import as_records, errors_of
from stages.records.curator import ChunkCuration, CuratedSample, Curator, SampleResult
from stages.records.table_columns import record_columns
from stages.refold_units import RefoldedSample, UnitRefolder, with_folds
from stages.settings_change import SettingsChange

STAGE = "curate"


class Recurate:
    """Repeats the steps after the model for chunks of a published run.

    fingerprint: of the new records. traces: whether they have rows of traces/. addresses: of the
    media, which are read again where speech is looked for.
    """

    def __init__(
        self,
        change: SettingsChange,
        rules: MediaRules,
        fingerprint: str,
        *,
        traces: bool,
        addresses: FullAddresses,
    ) -> None:
        old, new = change.old, change.new
        self._change = change
        self._fingerprint = fingerprint
        if change.cuts_spans or change.cuts_units:
            load_language_without_torch(new.spans.pipeline)
        self._segmenter = Segmenter(new.spans) if change.cuts_spans else None
        # Only what is built again here: stored heat maps and traces may be copied instead.
        built = {"heatmaps": change.draws_heatmaps, "store": new.trace.store if traces else "none"}
        self._trace = new.trace.model_copy(update=built)
        options = ReadingOptions(rules, new.media, new.units, new.asr, new.spans)
        reader = SampleReader(options, isolate=True)
        signals = new.trace.signals
        self._refolder = UnitRefolder(reader, old.units, signals, change.speech_settings, addresses)

    def __call__(self, chunk: StoredChunk) -> pa.Table:
        """The records of the chunk, one for each sample, in the schema of CHUNK_FILE.

        Raises:
            RunError: the run's tables do not fit together.
        """
        refolded: dict[int, RefoldedSample] = {}
        rows = chunk.state()
        if self._change.cuts_units:
            rows, refolded = self._refold(rows)
        stored = chunk.segmentations()
        new = self._change.new

        def cut_spans(row: StateRow) -> Segmentation:
            _check_signals(chunk.signals(row.index), new.trace.signals)
            return self._cut_spans(stored, row)

        analyse_batch = self._segmenter.analyse_batch if self._segmenter else None
        curator = Curator(STAGE, cut_spans, new.curation, self._trace, new.units, analyse_batch)
        curation = curator(views(rows))
        columns = record_columns(rows, curation, self._trace)
        if self._change.copies_heatmaps:
            columns["heatmaps"] = _stored_heatmaps(chunk, curation)
        notes = self._notes(chunk, curation.curated, refolded)
        samples = self._samples(chunk, rows, curation.results, notes)
        return pa.Table.from_struct_array(as_records(samples, columns)).cast(CHUNK_FILE)

    def _cut_spans(self, stored: Sequence[Segmentation | None], row: StateRow) -> Segmentation:
        if self._segmenter is not None:
            return self._segmenter.segment(row.response, row.char_spans)
        segmentation = stored[row.index]
        if segmentation is None:
            raise TraceError("the run does not store how this response was cut into spans")
        return segmentation

    def _refold(self, rows: pa.StructArray) -> tuple[pa.StructArray, dict[int, RefoldedSample]]:
        results = {
            row.index: guarded(STAGE, row.row_key, partial(self._refolder.refold, row))
            for row in views(rows)
            if not row.failed
        }
        refolded = {i: item for i, item in results.items() if isinstance(item, RefoldedSample)}
        rows = with_folds(rows, refolded, self._trace.signals)
        errors = rows.field("error").to_pylist()
        for i, item in results.items():
            if isinstance(item, RowError):
                errors[i] = error_fields(item)
        return replace_fields(rows, {"error": errors}), refolded

    def _samples(
        self,
        chunk: StoredChunk,
        rows: pa.StructArray,
        results: Sequence[SampleResult],
        notes: pa.Array,
    ) -> pa.StructArray:
        """The stored rows of samples/ with their changed columns replaced."""
        errors = errors_of(rows, results)
        was_error = pc.equal(chunk.samples.field("status"), "error")
        timings = chunk.samples.field("timings")
        curate_s = [
            item.curate_s if isinstance(item, CuratedSample) else stored_s
            for item, stored_s in zip(results, timings.field("curate_s").to_pylist(), strict=True)
        ]
        columns = {
            "status": ["ok" if error is None else "error" for error in errors],
            "error_stage": [error.stage if error else "" for error in errors],
            "error_code": [error.code if error else "" for error in errors],
            "message": [error.message if error else "" for error in errors],
            "units": rows.field("units"),
            # Runs of older versions hold complete addresses.
            "messages": with_plain_addresses(chunk.samples.field("messages")),
            "media": with_plain_addresses(chunk.samples.field("media")),
            "notes": notes,
            "timings": replace_fields(timings, {"curate_s": curate_s}),
            "fingerprint": pc.if_else(
                was_error, chunk.samples.field("fingerprint"), self._fingerprint
            ),
            "schema_version": [SCHEMA_VERSION] * len(errors),
        }
        return replace_fields(chunk.samples, columns)

    def _notes(
        self,
        chunk: StoredChunk,
        curated: Mapping[int, CuratedSample],
        refolded: Mapping[int, RefoldedSample],
    ) -> pa.Array | list[list[str]]:
        """The samples' notes; those of repeated steps replace the stored notes of these steps."""
        stored = chunk.samples.field("notes")
        if not self._change.cuts_spans and not refolded:
            return stored
        notes: list[list[str]] = stored.to_pylist()
        stored_segmentations = chunk.segmentations()
        for i, item in curated.items():
            segmentation = stored_segmentations[i]
            if segmentation is not None:
                kept = notes[i][: len(notes[i]) - len(segmentation.notes)]
                if i in refolded:
                    old = refolded[i].old_notes
                    kept = [*(note for note in kept if note not in old), *refolded[i].notes]
                notes[i] = [*kept, *item.segmentation.notes]
        return notes


def _check_signals(stored: Sequence[str], signals: Sequence[str]) -> None:
    """Raises: TraceError, if a signal is not stored."""
    missing = [name for name in signals if name not in stored]
    if missing:
        raise TraceError(
            f"traces/ holds the signals {list(stored)} of this sample, not {missing}: its shard is "
            "damaged or of another run; run again"
        )


def _stored_heatmaps(chunk: StoredChunk, curation: ChunkCuration) -> pa.ListArray:
    """The stored rows of heatmaps/ of the curated samples."""
    bounds = chunk.bounds(chunk.heatmaps).tolist()
    counts = {i: bounds[i + 1] - bounds[i] for i in curation.curated}
    indices = [row for i in counts for row in range(bounds[i], bounds[i + 1])]
    heatmaps = take(chunk.heatmaps, np.array(indices, np.int64))
    return list_array(counts, len(curation.results), heatmaps)
