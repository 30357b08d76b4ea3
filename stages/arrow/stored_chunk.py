"""Samples of a published run: their rows in every table, as STATE rows and as segmentations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.errors import RunError
from omnitrace_core.records import Segmentation, Span
from stages.arrow.columns import IntArray, combined, struct_array, take
from stages.arrow.sample_schema import SAMPLE
from stages.arrow.state_schema import ERROR, FOLD, STATE, TRACE
from stages.arrow.table_schema import (
    CHUNK_FILE,
    HEATMAPS_ROW,
    RECORD,
    SAMPLES_ROW,
    SPANS_ROW,
    TRACES_ROW,
)

_ROWS: Mapping[str, pa.StructType] = {
    "samples": SAMPLES_ROW,
    "spans": SPANS_ROW,
    "traces": TRACES_ROW,
    "heatmaps": HEATMAPS_ROW,
}
_TIMINGS = ("fetch_s", "decode_s", "speech_s", "trace_s", "replay_s")


def as_rows(table: pa.Table, name: str) -> pa.StructArray:
    """Rows of a published table without dictionaries; missing fields become null."""
    columns = {
        field.name: combined(table.column(field.name).cast(field.type))
        for field in _ROWS[name]
        if field.name in table.column_names
    }
    return struct_array(_ROWS[name], columns, len(table))


def no_rows(name: str) -> pa.StructArray:
    """An empty table, as `as_rows` returns it."""
    return pa.array([], _ROWS[name])


@dataclass(frozen=True)
class StoredChunk:
    """Rows of samples/, and the rows of the other tables that belong to them, in the same order.

    The rows are SAMPLES_ROW, SPANS_ROW, TRACES_ROW and HEATMAPS_ROW structs. Tables that are not
    needed may be empty, and columns null.
    """

    samples: pa.StructArray
    spans: pa.StructArray
    traces: pa.StructArray
    heatmaps: pa.StructArray

    def bounds(self, rows: pa.StructArray) -> IntArray:
        """Where the rows of each sample begin in a table, and where those of the last sample end.

        Raises:
            RunError: the rows are not in the order of the samples, or one belongs to no sample.
        """
        owner = pc.index_in(rows.field("row_key"), value_set=self.samples.field("row_key"))
        if owner.null_count:
            unknown = rows.field("row_key").filter(owner.is_null())[0].as_py()
            raise RunError(f"a published table has rows of {unknown}, which samples/ does not have")
        place = owner.to_numpy()
        if (np.diff(place) < 0).any():
            raise RunError("a published table's rows are not in the order of samples/")
        return np.searchsorted(place, np.arange(len(self.samples) + 1))

    @cached_property
    def _traced(self) -> IntArray:
        return self.bounds(self.traces)

    @cached_property
    def _first_traces(self) -> pa.StructArray:
        """The first row of traces/ of each sample; null for a sample without a trace."""
        begin, end = self._traced[:-1], self._traced[1:]
        if (begin < end).all():
            return take(self.traces, begin)
        return self.traces.take(pa.array(begin, mask=begin == end))

    def signals(self, index: int) -> list[str]:
        """The signals of a sample in traces/."""
        begin, end = self._traced[index], self._traced[index + 1]
        found: list[str] = self.traces.field("signal").slice(begin, end - begin).to_pylist()
        return found

    def state(self) -> pa.StructArray:
        """The samples as STATE rows, as the run's last stage received them."""
        columns = {field.name: self.samples.field(field.name) for field in self.samples.type}
        timings = {name: columns["timings"].field(name) for name in _TIMINGS}
        state = {
            "row_key": columns["row_key"],
            "sample": struct_array(pa.struct(list(SAMPLE)), columns, len(self.samples)),
            "error": self._errors(),
            "media_info": columns["media"],
            "units": columns["units"],
            "trace": self._traces(),
            "traced_by": columns["traced_by"],
            "attempts": columns["attempts"],
            **timings,
        }
        return struct_array(pa.struct(list(STATE)), state, len(self.samples))

    def _errors(self) -> pa.StructArray:
        fields = [self.samples.field(name) for name in ("error_stage", "error_code", "message")]
        ok = pc.equal(self.samples.field("status"), "ok")
        return pa.StructArray.from_arrays(fields, fields=list(ERROR), mask=ok)

    def _traces(self) -> pa.StructArray:
        first = self._first_traces
        fold = struct_array(
            FOLD, {f.name: self.traces.field(f.name) for f in FOLD}, len(self.traces)
        )
        of_sample = ("response", "finish_reason", "n_prompt_tokens")
        of_trace = ("token_ids", "tokens", "char_starts", "char_ends", "logprobs", "prompt")
        columns = {
            **{name: self.samples.field(name) for name in of_sample},
            **{name: pc.struct_field(first, name) for name in of_trace},
            "folds": pa.ListArray.from_arrays(pa.array(self._traced, pa.int32()), fold),
        }
        rows = struct_array(TRACE, columns, len(first))
        return pa.StructArray.from_arrays(rows.flatten(), fields=list(TRACE), mask=first.is_null())

    def records(self) -> pa.Table:
        """The samples as they are stored, in the schema CHUNK_FILE.

        Raises:
            RunError: the tables do not fit together.
        """
        columns: dict[str, pa.Array] = {"sample": self.samples}
        for name in ("spans", "traces", "heatmaps"):
            rows = getattr(self, name)
            bounds = pa.array(self.bounds(rows), pa.int32())
            columns[name] = pa.ListArray.from_arrays(bounds, rows, type=RECORD.field(name).type)
        arrays = [columns[name] for name in CHUNK_FILE.names]
        return pa.Table.from_arrays(arrays, schema=CHUNK_FILE)

    def segmentations(self) -> list[Segmentation | None]:
        """How each response was cut into spans; None for a sample without a trace."""
        first = self._first_traces
        tags = pc.struct_field(first, "pos").to_pylist()
        notes = pc.struct_field(first, "notes").to_pylist()
        spans = self._spans()
        return [
            None if pos is None else Segmentation(of_sample, tuple(pos), tuple(noted))
            for of_sample, pos, noted in zip(spans, tags, notes, strict=True)
        ]

    def _spans(self) -> list[tuple[Span, ...]]:
        names = ("span_index", "text", "char_start", "char_end", "token_start", "token_end")
        columns = [self.spans.field(name).to_pylist() for name in names]
        # `names` are in the order of Span's fields.
        spans = [Span(*row) for row in zip(*columns, strict=True)]
        bounds = self.bounds(self.spans).tolist()
        return [tuple(spans[a:b]) for a, b in pairwise(bounds)]
