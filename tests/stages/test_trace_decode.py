"""The trace stage around a made-up tracer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from omnitrace_core.errors import BackendError, OutOfMemory
from omnitrace_core.options import TraceOptions
from omnitrace_core.records import SourceUnit
from stages.chunk import Fields, StateRow, run_rows, state_rows
from stages.codec import encode_units
from stages.media_codec import encode_media
from tests.core.samples import video
from tests.stages.chunks import codes_of, errors_of, read_chunk, text_row
from tests.stages.made_traces import TRACED_BY, MadeTracer, make_trace, samples_of, trace_stage

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
    assert [item.sample.sample_id for item in tracer.asked] == ["a", "c", "d"]
    assert all(set(item.media) == {0} and len(item.units) == 2 for item in tracer.asked)
    # Theirs are on the row already; a trace repeats those it is handed.
    assert all(item.notes == () for item in tracer.asked)
    assert samples_of(done)[0]["notes"] == ["n"]
    assert codes_of(done) == [None, "missing_sample_id", None, None]
    for row, asked in zip([0, 2, 3], tracer.asked, strict=True):
        back, made = state_rows(done)[row].trace, make_trace(asked, BOTH)
        assert back.token_ids == made.token_ids
        assert list(back.folds) == ["attmean", "attraw"]
        np.testing.assert_array_equal(back.folds["attraw"].mass, made.folds["attraw"].mass)
    rows = samples_of(done)
    assert [row["traced_by"] for row in rows] == [TRACED_BY, None, TRACED_BY, TRACED_BY]
    assert rows[1]["trace"] is None


def test_decoded_media_do_not_travel_on(chunk: pa.Table) -> None:
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


def test_nothing_to_trace(tmp_path: Path) -> None:
    tracer = MadeTracer()
    done = trace_stage(tracer)(read_chunk(tmp_path, [text_row(None)]))
    assert tracer.calls == []
    assert codes_of(done) == ["missing_sample_id"]
