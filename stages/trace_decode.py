"""Fourth stage: the model answers or replays each sample; its signals are folded into units."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Protocol

import pyarrow as pa

from omnitrace_core.errors import SampleError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from stages import codec
from stages.chunk import Fields, StateRow, state_rows, with_results
from stages.guard import RowError, as_row_error, guarded

STAGE = "trace_decode"
Outcome = TokenTrace | SampleError | RowError


class Tracer(Protocol):
    """What this stage needs of `omnitrace_core.batch_tracer.BatchTracer`."""

    def trace(self, ready: Sequence[ReadySample]) -> Sequence[TokenTrace | SampleError]: ...


class TraceDecode:
    """Holds the model; one per replica. Batching and sorting by length are the core's."""

    def __init__(self, model: ModelOptions, decode: DecodeOptions, trace: TraceOptions) -> None:
        from omnitrace_core.batch_tracer import BatchTracer

        tracer = BatchTracer(model, decode, trace)
        self._tracer: Tracer = tracer
        self._traced_by = asdict(tracer.traced_by)

    def __call__(self, table: pa.Table) -> pa.Table:
        """One chunk: fills `trace`, `traced_by` and `trace_s`; drops the decoded media."""
        started = time.perf_counter()
        rows = state_rows(table)
        todo = [(index, row) for index, row in enumerate(rows) if not row.failed]
        ready = {index: guarded(STAGE, row.row_key, partial(_ready, row)) for index, row in todo}
        samples = {i: item for i, item in ready.items() if isinstance(item, ReadySample)}
        traced = self._tracer.trace(list(samples.values())) if samples else []
        outcomes: dict[int, Outcome] = {
            **{i: item for i, item in ready.items() if isinstance(item, RowError)},
            **dict(zip(samples, traced, strict=True)),
        }
        share_s = (time.perf_counter() - started) / max(len(todo), 1)
        results = [
            self._result(outcomes[index], share_s) if index in outcomes else None
            for index in range(len(rows))
        ]
        fields = ("trace", "traced_by", "trace_s")
        return with_results(table, results, fields=fields, drop=("media", "speech"))

    def _result(self, outcome: Outcome, share_s: float) -> Fields | RowError:
        if isinstance(outcome, SampleError):
            return as_row_error(STAGE, outcome)
        if isinstance(outcome, RowError):
            return outcome
        return {
            "trace": codec.encode_trace(outcome),
            "traced_by": self._traced_by,
            "trace_s": share_s,
        }


def _ready(row: StateRow) -> ReadySample:
    # Without the notes so far: the row keeps them, and a trace repeats those of its sample.
    return ReadySample(sample=row.sample, media=row.media, units=row.units)
