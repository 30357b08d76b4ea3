"""The trace stage with a tracer that needs no model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from omnitrace_core.errors import BackendError, DeviceBroken, OutOfMemory, SampleError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, SourceUnit, TokenTrace
from stages.arrow.chunk import Fields, StateRow, state_rows
from stages.arrow.codec import encode_units
from stages.arrow.media_codec import encode_media
from stages.guards.deadline import HANGING_EXIT
from stages.trace_decode import BROKEN_DEVICE_EXIT, TraceDecode, TraceDecodeOptions
from tests.core.ready_samples import video
from tests.stages.chunks import (
    Killed,
    codes_of,
    error_of,
    errors_of,
    read_chunk,
    run_rows,
    text_row,
)
from tests.stages.conftest import Exits
from tests.stages.made_traces import TRACED_BY, MadeTracer, make_trace, samples_of, trace_stage
from tests.stages.memory_log import MemoryLog

BOTH = TraceOptions(signals=("attmean", "attraw"))


@pytest.fixture
def chunk(tmp_path: Path) -> pa.Table:
    """Four samples, the second in error; each of the others with two units and a decoded video."""
    rows = [text_row(name) for name in ("a", None, "c", "d")]
    units = [SourceUnit(index, "sentence", "text", 0, text="One.") for index in range(2)]

    def prepare(row: StateRow) -> Fields:
        media = encode_media({0: video(len(row.sample_id))})
        return {"units": encode_units(units), "media": media, "notes": ["n"], "media_info": []}

    fields = ("units", "media", "notes", "media_info")
    return run_rows(read_chunk(tmp_path, rows), "chunk_audio", prepare, fields=fields)


def test_traces_land_on_their_rows(chunk: pa.Table) -> None:
    tracer = MadeTracer(BOTH)
    done = trace_stage(tracer)(chunk)
    assert tracer.calls == [3]
    assert [item.sample.sample_id for item in tracer.inputs] == ["a", "c", "d"]
    assert all(set(item.media) == {0} and len(item.units) == 2 for item in tracer.inputs)
    # The row keeps its notes; a trace would repeat those of its sample.
    assert all(item.notes == () for item in tracer.inputs)
    assert samples_of(done)[0]["notes"] == ["n"]
    assert codes_of(done) == [None, "missing_sample_id", None, None]
    for row, ready in zip([0, 2, 3], tracer.inputs, strict=True):
        back, made = state_rows(done)[row].trace, make_trace(ready, BOTH)
        assert back.token_ids == made.token_ids
        assert list(back.folds) == ["attmean", "attraw"]
        np.testing.assert_array_equal(back.folds["attraw"].mass, made.folds["attraw"].mass)
    rows = samples_of(done)
    assert [row["traced_by"] for row in rows] == [
        asdict(TRACED_BY),
        None,
        asdict(TRACED_BY),
        asdict(TRACED_BY),
    ]
    assert [row["replay_s"] for row in rows] == [0.25, None, 0.25, 0.25]
    assert rows[1]["trace"] is None


def test_decoded_media_are_dropped(chunk: pa.Table) -> None:
    done = trace_stage(MadeTracer())(chunk)
    assert [row["media"] for row in samples_of(done)] == [None] * 4
    assert done.nbytes < chunk.nbytes / 10


def test_failures_of_single_samples(chunk: pa.Table) -> None:
    done = trace_stage(MadeTracer(c=OutOfMemory("c is too long")))(chunk)
    assert codes_of(done) == [None, "missing_sample_id", "out_of_memory", None]
    error = errors_of(done)[2]
    assert error == {"stage": "trace_decode", "code": "out_of_memory", "message": "c is too long"}


def test_fatal_error_stops_the_stage(chunk: pa.Table) -> None:
    with pytest.raises(BackendError, match="CUDA"):
        trace_stage(MadeTracer(c=BackendError("CUDA context is gone")))(chunk)


def test_device_that_cannot_work_blames_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example a GPU for which torch has no kernels: loading the weights onto it succeeds."""

    class Sick:
        traced_by = None

        def __init__(self, *_: object) -> None: ...

        def warm_up(self) -> None:
            raise BackendError("m cannot work on cuda: CUDA error: no kernel image")

    monkeypatch.setattr("omnitrace_core.tracing.batch_tracer.BatchTracer", Sick)
    with pytest.raises(BackendError, match="no kernel image"):
        TraceDecode(TraceDecodeOptions(ModelOptions(path="m"), DecodeOptions(), BOTH))


def test_nothing_to_trace(tmp_path: Path) -> None:
    tracer = MadeTracer()
    done = trace_stage(tracer)(read_chunk(tmp_path, [text_row(None)]))
    assert tracer.calls == []
    assert codes_of(done) == ["missing_sample_id"]


def test_chunk_is_counted_before_the_model_touches_it(chunk: pa.Table) -> None:
    log = MemoryLog()
    killer = MadeTracer(c=Killed())
    for number in range(1, 5):
        with pytest.raises(Killed):
            trace_stage(killer, log)(chunk)
        assert list(log.kept) == [f"{chunk['chunk_key'][0]}.trace_decode.json"]
        assert killer.calls == ([3], [3, 3], [3, 3, 1, 1], [3, 3, 1, 1, 1, 1])[number - 1]
    # A new process works one by one, and leaves out the sample that kills.
    tracer = MadeTracer()
    done = trace_stage(tracer, log)(chunk)
    assert tracer.calls == [1, 1]
    assert codes_of(done) == [None, "missing_sample_id", "quarantined", None]
    assert [row["attempts"] for row in samples_of(done)] == [5, None, 5, 5]
    assert log.kept == {}
    assert error_of(done, 2)["message"].startswith("shard.parquet:2: the process that worked on it")


def test_sample_whose_inputs_are_deadly_is_found_alone(chunk: pa.Table) -> None:
    class Unready(MadeTracer):
        def encode(self, ready: Sequence[ReadySample]) -> Sequence[ReadySample]:
            if any(item.sample.sample_id == "c" for item in ready):
                raise Killed
            return ready

    log = MemoryLog()
    for _ in range(4):
        with pytest.raises(Killed):
            trace_stage(Unready(), log)(chunk)
    done = trace_stage(Unready(), log)(chunk)
    assert codes_of(done) == [None, "missing_sample_id", "quarantined", None]


def test_first_attempt_is_one(chunk: pa.Table) -> None:
    done = trace_stage(MadeTracer(), MemoryLog())(chunk)
    assert [row["attempts"] for row in samples_of(done)] == [1, None, 1, 1]


def test_broken_device_ends_the_process(chunk: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    pool = ThreadPoolExecutor(1)

    def leave(code: int) -> None:
        codes.append(code)
        if len(codes) == 1:
            others.append(pool.submit(stage, chunk))
            time.sleep(0.2)
            assert tracer.calls == [3], "another chunk got the broken device"
        raise Killed

    monkeypatch.setattr("stages.trace_decode.os._exit", leave)
    log = MemoryLog()
    tracer = MadeTracer(c=DeviceBroken("CUDA error: misaligned address"))
    stage = trace_stage(tracer, log)
    others: list[Future[pa.Table]] = []
    with pool, pytest.raises(Killed):
        stage(chunk)
    assert isinstance(others[0].exception(), Killed)
    assert codes == [BROKEN_DEVICE_EXIT] * 2
    assert len(log.kept) == 1


def test_device_that_breaks_while_inputs_are_made_ends_the_process(
    chunk: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(MadeTracer):
        def encode(self, ready: Sequence[ReadySample]) -> Sequence[ReadySample]:
            raise DeviceBroken("CUDA error: misaligned address")

    def leave(code: int) -> None:
        assert code == BROKEN_DEVICE_EXIT
        raise Killed

    monkeypatch.setattr("stages.trace_decode.os._exit", leave)
    with pytest.raises(Killed):
        trace_stage(Breaking(), MemoryLog())(chunk)


def test_inputs_that_take_too_long_end_the_process(chunk: pa.Table, exits: Exits) -> None:
    class Hanging(MadeTracer):
        def encode(self, ready: Sequence[ReadySample]) -> Sequence[ReadySample]:
            exits.wait()
            raise Killed

    with pytest.raises(Killed):
        trace_stage(Hanging(), MemoryLog(), timeout_s=0.1)(chunk)
    assert exits.codes == [HANGING_EXIT]


def test_chunk_is_done_when_its_table_is_built(
    chunk: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(trace: TokenTrace) -> bytes:
        raise Killed

    monkeypatch.setattr("stages.trace_decode.codec.encode_trace", too_much)
    log = MemoryLog()
    with pytest.raises(Killed):
        trace_stage(MadeTracer(), log)(chunk)
    assert len(log.kept) == 1


class Crowded(MadeTracer):
    """The first call waits for a second chunk to begin; each call notes which chunks are blamed."""

    def __init__(self, log: MemoryLog, **faults: BaseException) -> None:
        super().__init__(None, **faults)
        self.log = log
        self.blamed: list[list[str]] = []

    def note(self) -> None:
        """Note the chunks whose records name a sample in work: a death would be blamed on it."""
        kept = {name: json.loads(record) for name, record in dict(self.log.kept).items()}
        self.blamed.append([name for name in kept if kept[name]["current"]])

    def trace_encoded(self, ready: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
        end_s = time.monotonic() + 60
        while not self.calls and any(b'"number": 2' in one for one in self.log.kept.values()):
            assert time.monotonic() < end_s, "the second chunk does not begin"
            time.sleep(0.01)
        self.note()
        return super().trace_encoded(ready)


def twice(chunk: pa.Table, log: MemoryLog) -> list[pa.Table]:
    """The chunk under two keys, both before their third attempt."""
    keys = ["first", "second"]
    for key in keys:
        log.kept[f"{key}.trace_decode.json"] = json.dumps({"epoch": 1, "number": 2}).encode()
    return [chunk.set_column(0, "chunk_key", pa.array([key] * len(chunk))) for key in keys]


def test_chunk_that_waits_is_not_blamed_for_a_broken_device(
    chunk: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    tracer = Crowded(log, a=DeviceBroken("CUDA error: misaligned address"))

    def leave(code: int) -> None:
        time.sleep(0.2)  # the waiting chunk could begin now, if it no longer waited
        tracer.note()
        raise Killed

    monkeypatch.setattr("stages.trace_decode.os._exit", leave)
    stage = trace_stage(tracer, log)
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(stage, one) for one in twice(chunk, log)]
        assert all(isinstance(end.exception(), Killed) for end in ends)
    # While the second chunk waited, and when the first ended; then the second has its own turn.
    assert [len(names) for names in tracer.blamed[:2]] == [1, 1]


def test_chunk_that_is_done_is_not_blamed_for_the_next(chunk: pa.Table) -> None:
    class Slow(MemoryLog):
        def delete(self, name: str) -> None:
            time.sleep(0.2)
            super().delete(name)

    log = Slow()
    tracer = Crowded(log)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(trace_stage(tracer, log), twice(chunk, log)))
    assert [len(names) for names in tracer.blamed] == [1] * 6
    assert log.kept == {}


def test_model_that_hangs_ends_its_process(chunk: pa.Table, exits: Exits) -> None:
    """The attempt at its chunk counts, and another process does the chunk."""

    class Hanging(MadeTracer):
        def trace_encoded(self, ready: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
            exits.wait()
            raise Killed

    log = MemoryLog()
    with pytest.raises(Killed):
        trace_stage(Hanging(), log, timeout_s=0.1)(chunk)
    assert exits.codes == [HANGING_EXIT]
    assert len(log.kept) == 1
    done = trace_stage(MadeTracer(), log, timeout_s=600)(chunk)
    for timer in [one for one in threading.enumerate() if isinstance(one, threading.Timer)]:
        timer.join(20)
        assert not timer.is_alive(), "work that ended in time has a running deadline"
    assert exits.codes == [HANGING_EXIT]
    assert codes_of(done) == [None, "missing_sample_id", None, None]


def test_inputs_are_made_while_the_model_works(chunk: pa.Table) -> None:
    """The first chunk holds the model until the second one's inputs are made."""
    prepared = threading.Semaphore(0)
    with_model: list[int] = []

    class Slow(MadeTracer):
        def encode(self, ready: Sequence[ReadySample]) -> Sequence[ReadySample]:
            prepared.release()
            return ready

        def trace_encoded(self, ready: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
            with_model.append(1)
            assert len(with_model) == 1, "two chunks use the model"
            if not self.calls:
                assert prepared.acquire(timeout=20)
                assert prepared.acquire(timeout=20)
            with_model.pop()
            return super().trace_encoded(ready)

    stage = trace_stage(Slow(), MemoryLog())
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(stage, [chunk, chunk]))
    assert [codes_of(table) for table in done] == [[None, "missing_sample_id", None, None]] * 2
