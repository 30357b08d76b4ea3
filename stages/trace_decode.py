"""Fourth stage: the model answers or replays each sample; its signals are folded into units."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import pyarrow as pa

from omnitrace_core.errors import DeviceBroken, SampleError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from stages import codec
from stages.attempts import AttemptLog, Attempts
from stages.chunk import Fields, StateRow, state_rows, with_results
from stages.guard import RowError, as_row_error, guarded
from stages.schema import STATE

STAGE = "trace_decode"
BROKEN_DEVICE = 70  # exit status of a process whose device is broken
Outcome = TokenTrace | SampleError | RowError
log = logging.getLogger(__name__)


class Tracer(Protocol):
    """What this stage needs of `omnitrace_core.batch_tracer.BatchTracer`."""

    replay_s: float

    def prepare(self, ready: Sequence[ReadySample]) -> Sequence[Any]: ...
    def trace_prepared(self, prepared: Sequence[Any]) -> Sequence[TokenTrace | SampleError]: ...


class TraceDecode:
    """Holds the model; one per replica. Batching and sorting by length are the core's.

    Two threads may call it: while one traces, the other makes the next chunk's inputs. attempts:
    where attempts at a chunk are counted before the model works on it.
    """

    def __init__(
        self,
        model: ModelOptions,
        decode: DecodeOptions,
        trace: TraceOptions,
        attempts: AttemptLog | None = None,
    ) -> None:
        from omnitrace_core.batch_tracer import BatchTracer

        tracer = BatchTracer(model, decode, trace)
        self._take(tracer, asdict(tracer.traced_by), attempts)

    def _take(
        self, tracer: Tracer, traced_by: Mapping[str, str], attempts: AttemptLog | None
    ) -> None:
        self._tracer, self._traced_by = tracer, traced_by
        self._attempts = Attempts(STAGE, attempts)
        self._turn = threading.Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        """One chunk: fills `trace`, `traced_by`, times and `attempts`; drops the decoded media."""
        rows = state_rows(table)
        todo = [row for row in rows if not row.failed]
        ready = {row.index: guarded(STAGE, row.row_key, partial(_ready, row)) for row in todo}
        samples = {i: item for i, item in ready.items() if isinstance(item, ReadySample)}
        prepared = dict(zip(samples, self._tracer.prepare(list(samples.values())), strict=True))
        outcomes: dict[int, Outcome] = {
            index: item for index, item in ready.items() if isinstance(item, RowError)
        }
        number, shares_s = 1, (0.0, 0.0)
        if prepared:
            # One chunk at a time has the device, and is counted only once it has it.
            with self._turn:
                started, replayed_s = time.perf_counter(), self._tracer.replay_s
                number, traced = self._trace(table, rows, prepared)
                spent_s = (time.perf_counter() - started, self._tracer.replay_s - replayed_s)
            shares_s = (spent_s[0] / len(prepared), spent_s[1] / len(prepared))
            outcomes.update(traced)
        results = [
            self._result(outcomes[index], *shares_s) if index in outcomes else None
            for index in range(len(rows))
        ]
        counted = pa.array([number if index in prepared else None for index in range(len(rows))])
        return with_results(
            table,
            results,
            fields=("trace", "traced_by", "trace_s", "replay_s"),
            drop=("media", "speech"),
            columns_too={"attempts": counted.cast(STATE.field("attempts").type)},
        )

    def _trace(
        self, table: pa.Table, rows: Sequence[StateRow], prepared: dict[int, Any]
    ) -> tuple[int, dict[int, TokenTrace | SampleError]]:
        """Which attempt at the chunk this was, and what came of each sample."""
        attempt = self._attempts.begin(table.column("chunk_key")[0].as_py())
        traced: dict[int, TokenTrace | SampleError] = {}
        try:
            if not attempt.one_by_one:
                outcomes = self._tracer.trace_prepared(list(prepared.values()))
                traced = dict(zip(prepared, outcomes, strict=True))
            else:
                for index, item in prepared.items():
                    try:
                        attempt.row(rows[index].row_key)
                    except SampleError as error:
                        traced[index] = error
                    else:
                        traced[index] = self._tracer.trace_prepared([item])[0]
        except DeviceBroken:
            # Ray gives a dead actor's work to a new one; an exception would end the run.
            log.critical("the device is broken; this process ends", exc_info=True)
            os._exit(BROKEN_DEVICE)
        attempt.done()
        return attempt.number, traced

    def _result(self, outcome: Outcome, trace_s: float, replay_s: float) -> Fields | RowError:
        if isinstance(outcome, SampleError):
            return as_row_error(STAGE, outcome)
        if isinstance(outcome, RowError):
            return outcome
        return {
            "trace": codec.encode_trace(outcome),
            "traced_by": self._traced_by,
            "trace_s": trace_s,
            "replay_s": replay_s,
        }


def _ready(row: StateRow) -> ReadySample:
    # Without the notes so far: the row keeps them, and a trace repeats those of its sample.
    return ReadySample(sample=row.sample, media=row.media, units=row.units)
