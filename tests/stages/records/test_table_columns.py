"""What traces/ and heatmaps/ hold, by the settings that say what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from omnitrace_core.attribution.heatmaps import span_heatmaps, unpack
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import (
    CurationOptions,
    SpanOptions,
    TraceOptions,
    UnitOptions,
)
from omnitrace_core.reader import ReadingOptions
from omnitrace_core.text.spans import Segmenter
from stages.arrow.chunk import state_rows
from stages.chunk_speech import ChunkSpeech
from stages.curate_spans import CurateOptions, CurateSpans
from stages.decode_media import DecodeMedia
from stages.records.assemble import Provenance
from stages.records.table_columns import kept_tables
from tests.core.media_files import image_bytes
from tests.stages.chunks import read_chunk, text_row, user
from tests.stages.made_traces import MadeTracer, samples_of, trace_stage

READING = ReadingOptions(MediaRules())
SIGNALS = ("attmean", "attraw")
SAID = "A red lamp stands there. It is small."


def _trace(**more: Any) -> TraceOptions:
    return TraceOptions(signals=SIGNALS, **more)


def _traced(tmp_path: Path, trace: TraceOptions) -> pa.Table:
    """Rows of a text, of none, and of a picture with a text, traced."""
    picture = {"type": "image", "data": image_bytes(Image.new("RGB", (120, 80)))}
    question = {"type": "text", "text": "What is on it?"}
    rows = [
        text_row("a"),
        text_row(None),
        {"sample_id": "c", "messages": [user(picture, question)], "response": SAID},
    ]
    chunk = ChunkSpeech(READING)(DecodeMedia(READING)(read_chunk(tmp_path, rows)))
    return trace_stage(MadeTracer(trace))(chunk)


def _records(traced: pa.Table, trace: TraceOptions) -> list[dict[str, Any]]:
    provenance = Provenance("f00", "1.2.3")
    options = CurateOptions(SpanOptions(), CurationOptions(), trace, UnitOptions())
    stage = CurateSpans(options, provenance)
    records = samples_of(stage(traced))
    return records


@pytest.mark.parametrize(
    ("trace", "tables"),
    [
        (TraceOptions(), "samples spans traces"),
        (TraceOptions(store="none"), "samples spans"),
        (TraceOptions(store="positions"), "samples spans traces"),
        (TraceOptions(heatmaps=True), "samples spans traces heatmaps"),
        (TraceOptions(store="none", heatmaps=True), "samples spans heatmaps"),
        (TraceOptions(enabled=False), "samples spans"),
    ],
)
def test_tables_that_a_run_keeps(trace: TraceOptions, tables: str) -> None:
    assert kept_tables(trace) == tuple(tables.split())


def test_positions_are_kept_on_request(tmp_path: Path) -> None:
    trace = _trace(store="positions")
    traced = _traced(tmp_path, trace)
    records = _records(traced, trace)
    assert [len(record["traces"]) for record in records] == [2, 0, 2]
    for index in (0, 2):
        positions = state_rows(traced)[index].positions
        assert positions is not None
        prompt = positions.prompt
        for row in records[index]["traces"]:
            shape = (row["n_tokens"], row["n_positions"])
            rows = np.array(row["rows"], np.float32).reshape(shape)
            np.testing.assert_array_equal(rows, positions.rows[row["signal"]])
            assert row["prompt"]["stream"] == prompt.stream.tolist()
            assert row["prompt"]["part"] == prompt.part.tolist()
            assert row["prompt"]["lo"] == prompt.lo.tolist()
            assert row["prompt"]["hi"] == prompt.hi.tolist()
            assert row["prompt"]["box"] == prompt.box.ravel().tolist()
    assert all(not record["heatmaps"] for record in records)


def test_heat_maps_are_those_of_the_first_signal(tmp_path: Path) -> None:
    trace = _trace(heatmaps=True)
    traced = _traced(tmp_path, trace)
    records = _records(traced, trace)
    for record in records:
        for row in record["traces"]:
            assert row["rows"] is row["prompt"] is row["n_positions"] is None
    # Text has no picture.
    assert [len(record["heatmaps"]) for record in records] == [0, 0, 2]
    row = state_rows(traced)[2]
    assert row.positions is not None
    segmentation = Segmenter(SpanOptions()).segment(row.response, row.char_spans)
    expected = span_heatmaps(row.positions.rows["attmean"], row.positions.prompt, segmentation)
    for stored, drawn in zip(records[2]["heatmaps"], expected, strict=True):
        assert stored["signal"] == "attmean"
        assert (stored["sample_id"], stored["row_key"]) == ("c", "shard.parquet:2")
        names = ("span_index", "part_index", "modality", "step", "start_s", "end_s")
        for name in (*names, "width", "height"):
            assert stored[name] == getattr(drawn, name)
        shape = (stored["n_rows"], stored["n_columns"])
        assert shape == drawn.values.shape == (4, 4)
        values = unpack(np.array(stored["patches"], np.uint8), stored["scale"], *shape)
        np.testing.assert_allclose(values, drawn.values, atol=stored["scale"] * 0.51)


def test_trace_rows_follow_the_settings_not_the_trace(tmp_path: Path) -> None:
    traced = _traced(tmp_path, _trace())
    turned = TraceOptions(signals=("attraw", "attmean"))
    for signals in (turned, TraceOptions(signals=("attraw",))):
        records = _records(traced, signals)
        for record in records:
            stored = [row["signal"] for row in record["traces"]]
            assert stored == (list(signals.signals) if record["spans"] else [])
        fold = state_rows(traced)[2].trace.folds["attraw"]
        mass = np.array(records[2]["traces"][0]["mass"], np.float32)
        np.testing.assert_array_equal(mass, fold.mass.ravel())
        assert {span["signal"] for span in records[2]["spans"]} == {"attraw"}


def test_signal_that_was_not_traced_costs_the_row(tmp_path: Path) -> None:
    traced = _traced(tmp_path, TraceOptions(signals=("attraw",)))
    sample = _records(traced, TraceOptions())[0]["sample"]
    assert (sample["status"], sample["error_code"]) == ("error", "trace_error")
    assert "'attmean' was not traced" in sample["message"]
