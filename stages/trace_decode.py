"""Fourth stage: the model answers or replays each sample; its signals are folded into units."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import pyarrow as pa

from omnitrace_core.errors import DeviceBroken, SampleError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from stages.arrow import codec
from stages.arrow.chunk import Fields, StateRow, state_rows, with_results
from stages.arrow.schema import STATE
from stages.guards.attempts import Attempt, AttemptLog, Attempts, Loading
from stages.guards.deadline import deadline
from stages.guards.row_guard import RowError, as_row_error, guarded
from stages.guards.turns import Turns

STAGE = "trace_decode"
BROKEN_DEVICE = 70  # exit status
Outcome = TokenTrace | SampleError | RowError
log = logging.getLogger(__name__)


class Tracer(Protocol):
    """What this stage needs of `omnitrace_core.tracing.batch_tracer.BatchTracer`."""

    replay_s: float

    def encode(self, ready: Sequence[ReadySample]) -> Sequence[Any]: ...
    def trace_encoded(self, encoded: Sequence[Any]) -> Sequence[TokenTrace | SampleError]: ...


class TraceDecode:
    """Holds the model; one per replica. Batching and sorting by length are the core's.

    Two threads may call it: while one traces, the other makes the next chunk's inputs. attempts:
    where attempts at a chunk are counted before they begin. timeout_s: a chunk whose inputs
    take longer, or that the model is at for longer (from the third attempt on: a sample), ends the
    process, as if it had killed it.
    """

    def __init__(
        self,
        model: ModelOptions,
        decode: DecodeOptions,
        trace: TraceOptions,
        attempts: AttemptLog | None = None,
        timeout_s: float | None = None,
    ) -> None:
        from omnitrace_core.tracing.batch_tracer import BatchTracer

        loading = Loading(f"model.path={model.path}", attempts)
        self._given_up = loading.given_up
        if self._given_up:
            return
        with loading:
            tracer = BatchTracer(model, decode, trace)
            # A device that cannot work ends the run here, before samples are blamed for it.
            tracer.warm_up()
        self._take(tracer, asdict(tracer.traced_by), attempts, timeout_s)

    def _take(
        self,
        tracer: Tracer,
        traced_by: Mapping[str, str],
        attempts: AttemptLog | None,
        timeout_s: float | None = None,
    ) -> None:
        self._tracer, self._traced_by = tracer, traced_by
        self._given_up = None
        self._timeout_s = timeout_s
        self._attempts = Attempts(STAGE, attempts)
        self._turns = Turns()
        self._device = threading.Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        """One chunk: fills `trace`, `traced_by`, times and `attempts`; drops the decoded media."""
        if self._given_up:
            raise self._given_up
        rows = state_rows(table)
        todo = [row for row in rows if not row.failed]
        if not todo:
            return self._filled(table, rows)
        # Counted before anything is done with a sample: making its inputs can be deadly, too.
        attempt = self._attempts.begin(table.column("chunk_key")[0].as_py())
        # One by one: alone in the process, so that it dies of no other chunk than this.
        turn = self._turns.alone() if attempt.one_by_one else self._turns.together()
        # The attempt is over, in either way, before the turn is: else the chunk that waits for it
        # begins on a sample, and one of the two is blamed for the other's death.
        with turn:
            if attempt.one_by_one:
                outcomes, spent_s = self._one_by_one(todo, attempt)
            else:
                outcomes, spent_s = self._at_once(todo)
            shares_s = (spent_s[0] / len(todo), spent_s[1] / len(todo))
            traced = self._filled(table, rows, outcomes, attempt.number, *shares_s)
            attempt.done()
        return traced

    def _filled(
        self,
        table: pa.Table,
        rows: Sequence[StateRow],
        outcomes: Mapping[int, Outcome] | None = None,
        number: int = 1,
        trace_s: float = 0.0,
        replay_s: float = 0.0,
    ) -> pa.Table:
        """The chunk with what came of its rows. number: of the attempt; the times are per row."""
        outcomes = outcomes or {}
        results = [
            self._result(outcomes[row.index], trace_s, replay_s) if row.index in outcomes else None
            for row in rows
        ]
        counted = pa.array([number if row.index in outcomes else None for row in rows])
        return with_results(
            table,
            results,
            fields=("trace", "traced_by", "trace_s", "replay_s"),
            drop=("media", "speech"),
            columns_too={"attempts": counted.cast(STATE.field("attempts").type)},
        )

    def _one_by_one(
        self, rows: Sequence[StateRow], attempt: Attempt
    ) -> tuple[dict[int, Outcome], tuple[float, float]]:
        outcomes: dict[int, Outcome] = {}
        wall_s = replay_s = 0.0
        for row in rows:
            try:
                attempt.row(row.row_key)
            except SampleError as error:
                outcomes[row.index] = error
                continue
            made, spent_s = self._at_once([row])
            outcomes.update(made)
            wall_s, replay_s = wall_s + spent_s[0], replay_s + spent_s[1]
        return outcomes, (wall_s, replay_s)

    def _at_once(self, rows: Sequence[StateRow]) -> tuple[dict[int, Outcome], tuple[float, float]]:
        ready = {row.index: guarded(STAGE, row.row_key, partial(_ready, row)) for row in rows}
        samples = {i: item for i, item in ready.items() if isinstance(item, ReadySample)}
        outcomes: dict[int, Outcome] = {
            index: item for index, item in ready.items() if isinstance(item, RowError)
        }
        doing = f"{len(samples)} samples"
        with _ending_with_its_device(), deadline(self._timeout_s, f"the inputs of {doing}"):
            encoded = self._tracer.encode(list(samples.values()))
        # One chunk at a time has the device; the other thread makes the next one's inputs. It must
        # not get one that is broken.
        with self._device, _ending_with_its_device(), deadline(self._timeout_s, doing):
            started, replayed_s = time.perf_counter(), self._tracer.replay_s
            traced = self._tracer.trace_encoded(encoded) if samples else []
            spent_s = (time.perf_counter() - started, self._tracer.replay_s - replayed_s)
        outcomes.update(zip(samples, traced, strict=True))
        return outcomes, spent_s

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


@contextmanager
def _ending_with_its_device() -> Iterator[None]:
    """End the process where the device is broken.

    Ray gives a dead actor's work to a new one; an exception would end the run.
    """
    try:
        yield
    except DeviceBroken:
        log.critical("the device is broken; this process ends", exc_info=True)
        os._exit(BROKEN_DEVICE)


def _ready(row: StateRow) -> ReadySample:
    # Without the notes so far: the row keeps them, and a trace repeats those of its sample.
    return ReadySample(sample=row.sample, media=row.media, units=row.units)
