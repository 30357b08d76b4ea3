"""Fourth stage: the model generates or replays each response; its signals are folded into units."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from omnitrace_core.errors import DeviceBroken, SampleError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from stages.arrow import codec
from stages.arrow.chunk import Fields, StateRow, state_rows, with_results
from stages.arrow.state_schema import STATE
from stages.guards.attempts import Attempt, AttemptCounter, AttemptLog, CountedLoad
from stages.guards.deadline import deadline
from stages.guards.node_guard import naming_node_faults
from stages.guards.row_guard import RowError, as_row_error, guarded
from stages.guards.shared_lock import SharedLock

if TYPE_CHECKING:
    from omnitrace_core.tracing.batch_tracer import TracedBy

STAGE = "trace_decode"
BROKEN_DEVICE_EXIT = 70  # exit status
log = logging.getLogger(__name__)

Results = Mapping[int, TokenTrace | SampleError | RowError]  # by row index


@dataclass(frozen=True, slots=True)
class TraceDecodeOptions:
    """The settings that this stage uses."""

    model: ModelOptions
    decode: DecodeOptions
    trace: TraceOptions


class BatchTracing(Protocol):
    """The interface this stage uses of `omnitrace_core.tracing.batch_tracer.BatchTracer`."""

    replay_s: float

    @property
    def traced_by(self) -> TracedBy: ...
    def warm_up(self) -> None: ...
    def encode(self, ready: Sequence[ReadySample]) -> Sequence[Any]: ...
    def trace_encoded(self, encoded: Sequence[Any]) -> Sequence[TokenTrace | SampleError]: ...


LoadTracer = Callable[[TraceDecodeOptions], BatchTracing]


def load_batch_tracer(options: TraceDecodeOptions) -> BatchTracing:
    """Load the model with its signals. Raises: BackendError, ConfigError, UnknownName."""
    from omnitrace_core.tracing.batch_tracer import BatchTracer

    return BatchTracer(options.model, options.decode, options.trace)


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds: of tracing in all, and of its replays."""

    trace_s: float = 0.0
    replay_s: float = 0.0

    def __add__(self, other: _Times) -> _Times:
        return _Times(self.trace_s + other.trace_s, self.replay_s + other.replay_s)

    def divided(self, n: int) -> _Times:
        return _Times(self.trace_s / n, self.replay_s / n)


class TraceDecode:
    """Holds the model; one per replica. The core sorts samples by length and batches them.

    Two threads may call it: while one uses the device, the other encodes the next chunk.

    attempts: counts attempts at a chunk before they begin. timeout_s: the process ends if encoding
    a chunk, or tracing it, takes longer (from the third attempt on: a sample); that counts as a
    death. load: loads the tracer.
    """

    def __init__(
        self,
        options: TraceDecodeOptions,
        attempts: AttemptLog | None = None,
        timeout_s: float | None = None,
        load: LoadTracer = load_batch_tracer,
    ) -> None:
        self._timeout_s = timeout_s
        self._attempts = AttemptCounter(STAGE, attempts)
        self._process = SharedLock()  # held alone by a chunk that is done sample by sample
        self._device = threading.Lock()
        counted = CountedLoad(f"model.path={options.model.path}", attempts)
        self._refusal = counted.refusal
        if self._refusal:
            return
        with counted:
            self._tracer = load(options)
            # A broken device ends the run here, before its failures are counted as deaths caused by
            # samples.
            self._tracer.warm_up()
            self._traced_by = asdict(self._tracer.traced_by)
        self._refusal = counted.refusal

    @naming_node_faults(STAGE)
    def __call__(self, table: pa.Table) -> pa.Table:
        """Fill `trace`, `traced_by`, the times and `attempts` of a chunk; drop decoded media."""
        if self._refusal:
            raise self._refusal
        rows = state_rows(table)
        todo = [row for row in rows if not row.failed]
        if not todo:
            return self._filled(table, rows, {}, _Times(), attempt_number=1)
        # Counted before anything is done with a sample: encoding can kill the process, too.
        attempt = self._attempts.begin(table.column("chunk_key")[0].as_py())
        # Sample by sample, the chunk has the process to itself: only its own samples can kill it.
        lock = self._process.exclusive() if attempt.one_by_one else self._process.shared()
        # The attempt ends while the lock is held. Otherwise a waiting chunk could announce a sample
        # before this chunk's record is gone, and one would be blamed for the other's death.
        with lock:
            if attempt.one_by_one:
                results, times = self._trace_one_by_one(todo, attempt)
            else:
                results, times = self._trace_together(todo)
            share = times.divided(len(todo))
            traced = self._filled(table, rows, results, share, attempt_number=attempt.number)
            attempt.finish()
        return traced

    def _filled(
        self,
        table: pa.Table,
        rows: Sequence[StateRow],
        results: Results,
        share: _Times,
        *,
        attempt_number: int,
    ) -> pa.Table:
        """The chunk with its results. share: the times of one row."""
        attempts = [attempt_number if row.index in results else None for row in rows]
        return with_results(
            table,
            [self._fields(results, row.index, share) for row in rows],
            fields=("trace", "traced_by", "trace_s", "replay_s"),
            drop=("media", "speech"),
            columns={"attempts": pa.array(attempts, STATE.field("attempts").type)},
        )

    def _fields(self, results: Results, index: int, share: _Times) -> Fields | RowError | None:
        result = results.get(index)
        if isinstance(result, SampleError):
            return as_row_error(STAGE, result)
        if result is None or isinstance(result, RowError):
            return result
        return {
            "trace": codec.encode_trace(result),
            "traced_by": self._traced_by,
            "trace_s": share.trace_s,
            "replay_s": share.replay_s,
        }

    def _trace_one_by_one(
        self, rows: Sequence[StateRow], attempt: Attempt
    ) -> tuple[Results, _Times]:
        results: dict[int, TokenTrace | SampleError | RowError] = {}
        total = _Times()
        for row in rows:
            try:
                attempt.announce(row.row_key)
            except SampleError as error:
                results[row.index] = error
                continue
            result, times = self._trace_together([row])
            results.update(result)
            total += times
        return results, total

    def _trace_together(self, rows: Sequence[StateRow]) -> tuple[Results, _Times]:
        loaded = {row.index: guarded(STAGE, row.row_key, partial(_ready, row)) for row in rows}
        samples = {i: item for i, item in loaded.items() if isinstance(item, ReadySample)}
        errors = {i: item for i, item in loaded.items() if isinstance(item, RowError)}
        count = f"{len(samples)} samples"
        with _exit_if_device_breaks(), deadline(self._timeout_s, f"encoding {count}"):
            encoded = self._tracer.encode(list(samples.values()))
        # One chunk at a time uses the device, while the other thread encodes the next. If the
        # device breaks, the process ends before the lock is released to that chunk.
        with self._device, _exit_if_device_breaks(), deadline(self._timeout_s, f"tracing {count}"):
            started, replayed_s = time.perf_counter(), self._tracer.replay_s
            traced = self._tracer.trace_encoded(encoded) if samples else []
            times = _Times(time.perf_counter() - started, self._tracer.replay_s - replayed_s)
        return {**errors, **dict(zip(samples, traced, strict=True))}, times


@contextmanager
def _exit_if_device_breaks() -> Iterator[None]:
    """End the process if the device breaks in this block.

    Ray gives the work of a dead actor to a new one; an exception would end the run.
    """
    try:
        yield
    except DeviceBroken:
        log.critical("the device is broken; this process ends", exc_info=True)
        os._exit(BROKEN_DEVICE_EXIT)


def _ready(row: StateRow) -> ReadySample:
    # Without the row's notes: the row keeps them, and a trace would repeat those of its sample.
    return ReadySample(sample=row.sample, media=row.media, units=row.units)
