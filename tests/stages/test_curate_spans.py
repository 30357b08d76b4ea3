"""The last stage: what each table holds of samples that went well, and of those that did not."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from omnitrace_core.attribution.curation import curate
from omnitrace_core.errors import TraceError
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import (
    CurationOptions,
    DecodeOptions,
    ModelOptions,
    SpanOptions,
    TraceOptions,
    UnitOptions,
)
from omnitrace_core.reader import ReadingOptions
from omnitrace_core.text.spans import Segmenter
from stages.arrow.chunk import Fields, StateRow, state_rows
from stages.arrow.codec import encode_units
from stages.arrow.state_schema import chunk_schema
from stages.arrow.table_schema import MASS_BUCKETS, RECORD
from stages.chunk_speech import ChunkSpeech
from stages.curate_spans import CurateOptions, CurateSpans
from stages.decode_media import DecodeMedia
from stages.records.assemble import Provenance
from stages.trace_decode import TraceDecode, TraceDecodeOptions
from tests.stages.chunks import read_chunk, run_rows, text_row, user
from tests.stages.made_traces import TRACED_BY, MadeTracer, samples_of, trace_stage

READING = ReadingOptions(MediaRules())
TEXT = "The lamp is red. It stands in the hall. Where does it stand?"


BOTH = TraceOptions(signals=("attmean", "attraw"))


def _curate(trace: TraceOptions = BOTH) -> CurateSpans:
    return CurateSpans(
        CurateOptions(SpanOptions(), CurationOptions(), trace, UnitOptions()),
        Provenance(fingerprint="f00", code_version="1.2.3"),
    )


@pytest.fixture
def traced(tmp_path: Path) -> pa.Table:
    """Four rows: generated, without id, replayed, and one the tracer refuses."""
    rows = [
        text_row("a", TEXT, metadata=[("site", "x")], reference_answer="hall"),
        text_row(None),
        text_row("c", TEXT, response="In the hall. It is red.", options=["A. hall", "B. attic"]),
        text_row("d", TEXT, response="Nowhere."),
    ]
    chunk = ChunkSpeech(READING)(DecodeMedia(READING)(read_chunk(tmp_path, rows)))
    tracer = MadeTracer(BOTH, d=TraceError("d cannot be traced"))
    return trace_stage(tracer)(chunk)


def test_each_row_ends_as_one_record(traced: pa.Table) -> None:
    done = _curate()(traced)
    assert done.schema == chunk_schema(RECORD)
    records = samples_of(done)
    samples = [record["sample"] for record in records]
    assert [sample["status"] for sample in samples] == ["ok", "error", "ok", "error"]
    assert [sample["error_stage"] for sample in samples] == ["", "read", "", "trace_decode"]
    assert [sample["error_code"] for sample in samples] == [
        "",
        "missing_sample_id",
        "",
        "trace_error",
    ]
    assert [sample["sample_id"] for sample in samples] == ["a", "", "c", "d"]
    assert samples[0]["message"] == ""
    assert samples[3]["message"] == "d cannot be traced"
    assert samples[3]["response"] == "Nowhere."
    assert [len(record["spans"]) for record in records] == [2, 0, 2, 0]
    assert [len(record["traces"]) for record in records] == [2, 0, 2, 0]


def test_samples_row_has_its_provenance(traced: pa.Table) -> None:
    records = samples_of(_curate()(traced))
    sample = records[0]["sample"]
    assert sample["response"] == "The lamp is red. It stands in the hall."
    assert (sample["finish_reason"], sample["n_generated_tokens"]) == ("stop", 9)
    assert sample["response_token_ids"] == list(range(9))
    assert (sample["fingerprint"], sample["code_version"]) == ("f00", "1.2.3")
    assert sample["traced_by"] == asdict(TRACED_BY)
    assert sample["metadata"] == [("site", "x")]
    assert sample["reference_answer"] == "hall"
    assert sample["messages"][0]["content"][0]["text"] == TEXT
    assert [unit["text"] for unit in sample["units"]] == [
        "The lamp is red.",
        "It stands in the hall.",
        "Where does it stand?",
    ]
    assert "made up" in sample["notes"]
    assert all(seconds >= 0 for seconds in sample["timings"].values())
    assert records[2]["sample"]["finish_reason"] == "given"


def test_spans_are_those_of_the_core(traced: pa.Table) -> None:
    records = samples_of(_curate()(traced))
    row = state_rows(traced)[2]
    trace, units = row.trace, row.units
    segmentation = Segmenter(SpanOptions()).segment(trace.response, trace.char_spans)
    expected = curate(
        trace.folds["attmean"], units, segmentation, CurationOptions(), "mass", "exclude"
    )
    spans = records[2]["spans"]
    assert [span["text"] for span in spans] == ["In the hall.", "It is red."]
    for span, attribution in zip(spans, expected, strict=True):
        assert span["row_key"] == row.row_key
        assert span["signal"] == "attmean"
        assert trace.response[span["char_start"] : span["char_end"]] == span["text"]
        assert span["outcome"] == attribution.outcome
        assert span["confidence"] == pytest.approx(attribution.confidence, rel=1e-6)
        for bucket in MASS_BUCKETS:
            assert span[f"mass_{bucket}"] == pytest.approx(attribution.masses[bucket], rel=1e-6)
        assert sum(span[f"mass_{bucket}"] for bucket in MASS_BUCKETS) == pytest.approx(1, abs=1e-4)
        assert [source["unit_id"] for source in span["sources"]] == [
            source.unit.unit_id for source in attribution.sources
        ]
        for source, core in zip(span["sources"], attribution.sources, strict=True):
            assert source["text"] == core.unit.text
            assert source["mass"] == pytest.approx(core.mass, rel=1e-6)
            assert source["rank"] == core.rank


def test_stored_traces_hold_the_folds(traced: pa.Table) -> None:
    records = samples_of(_curate()(traced))
    trace = state_rows(traced)[0].trace
    first, second = records[0]["traces"]
    assert [first["signal"], second["signal"]] == ["attmean", "attraw"]
    assert (first["n_tokens"], first["n_units"]) == trace.folds["attmean"].mass.shape == (9, 3)
    mass = np.array(first["mass"], np.float32).reshape(9, 3)
    np.testing.assert_array_equal(mass, trace.folds["attmean"].mass)
    np.testing.assert_array_equal(first["markup"], trace.folds["attmean"].markup)
    np.testing.assert_array_equal(first["uncovered"], trace.folds["attmean"].uncovered)
    assert len(first["pos"]) == 9
    assert first["tokens"][:3] == ["The", " lamp", " is"]
    assert list(zip(first["char_starts"], first["char_ends"], strict=True)) == list(
        trace.char_spans
    )


def test_traces_may_be_left_out(traced: pa.Table) -> None:
    kept, bare = (_curate(TraceOptions(store=store))(traced) for store in ("units", "none"))
    assert [len(record["traces"]) for record in samples_of(kept)] == [1, 0, 1, 0]
    assert [len(record["traces"]) for record in samples_of(bare)] == [0] * 4
    assert [record["spans"] for record in samples_of(bare)] == [
        record["spans"] for record in samples_of(kept)
    ]


def test_generation_without_tracing(traced: pa.Table) -> None:
    records = samples_of(_curate(TraceOptions(enabled=False))(traced))
    assert [record["sample"]["status"] for record in records] == ["ok", "error", "ok", "error"]
    assert all(not record["spans"] and not record["traces"] for record in records)
    assert records[0]["sample"]["response"]


def test_curation_that_breaks_costs_one_row(
    traced: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segmenter.segment

    def break_on_c(self: Segmenter, response: str, char_spans: Any) -> Any:
        if response.startswith("In the hall"):
            raise IndexError("c")
        return segment(self, response, char_spans)

    monkeypatch.setattr(Segmenter, "segment", break_on_c)
    records = samples_of(_curate()(traced))
    sample = records[2]["sample"]
    assert (sample["status"], sample["error_stage"]) == ("error", "curate_spans")
    assert sample["message"] == "IndexError: c"
    assert sample["response"] == "In the hall. It is red."
    assert records[2]["spans"] == records[2]["traces"] == []
    assert records[0]["sample"]["status"] == "ok"


def test_mass_of_media_without_a_unit_is_in_the_spans_and_noted(
    tmp_path: Path, tiny_model: str
) -> None:
    """Units that OmniTrace cuts leave nothing out, so one of them is removed."""
    Image.new("RGB", (120, 80), "red").save(tmp_path / "red.png")
    content = [
        {"type": "image", "uri": str(tmp_path / "red.png")},
        {"type": "text", "text": TEXT},
    ]
    reading = ReadingOptions(MediaRules(), units=UnitOptions(image="grid", grid=(1, 2)))
    row = {"sample_id": "a", "messages": [user(*content)], "response": "In the hall."}
    chunk = ChunkSpeech(reading)(DecodeMedia(reading)(read_chunk(tmp_path, [row])))

    def without_first(row: StateRow) -> Fields:
        kept = [replace(unit, unit_id=j) for j, unit in enumerate(row.units[1:])]
        return {"units": encode_units(kept)}

    less = run_rows(chunk, "chunk_audio", without_first, fields=["units"])
    model = ModelOptions(path=tiny_model, device="cpu")
    trace = TraceDecode(TraceDecodeOptions(model, DecodeOptions(), BOTH))
    whole, partial = (samples_of(_curate()(trace(table)))[0] for table in (chunk, less))
    (full,), (span,) = whole["spans"], partial["spans"]
    assert full["mass_uncovered"] == 0.0
    assert span["mass_uncovered"] == pytest.approx(
        full["mass_image"] - span["mass_image"], rel=1e-4
    )
    assert 0 < span["mass_uncovered"] < full["mass_image"]
    assert span["mass_markup"] == pytest.approx(full["mass_markup"], rel=1e-4)
    assert sum(span[f"mass_{bucket}"] for bucket in MASS_BUCKETS) == pytest.approx(1, abs=1e-4)
    (note,) = [note for note in partial["sample"]["notes"] if "lie in no unit" in note]
    assert note.startswith("part 0: ")
    assert note.endswith("positions lie in no unit; their mass is counted as uncovered")
    assert not [note for note in whole["sample"]["notes"] if "lie in no unit" in note]
