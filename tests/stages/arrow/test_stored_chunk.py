"""Rows of a published run, put together by sample."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from omnitrace_core.errors import RunError
from omnitrace_core.records import Segmentation, Span
from stages.arrow.chunk import views
from stages.arrow.stored_chunk import StoredChunk, as_rows, no_rows
from stages.arrow.table_schema import SAMPLES, SPANS, TRACES

Row = dict[str, Any]


def _samples(*keys: str) -> list[Row]:
    fine = {"status": "ok", "error_stage": "", "error_code": "", "message": "", "response": "A."}
    return [{"row_key": key, "sample_id": key, "messages": [], **fine} for key in keys]


def _trace(key: str, signal: str, mass: list[float]) -> Row:
    ones = [0.0] * len(mass)
    fields = {"token_ids": [7] * len(mass), "pos": ["NOUN"] * len(mass), "notes": ["by rule"]}
    return {
        "row_key": key,
        "signal": signal,
        "mass": mass,
        "markup": ones,
        "generated": ones,
        **fields,
    }


def _chunk(samples: list[Row], spans: list[Row], traces: list[Row]) -> StoredChunk:
    tables = {"samples": (samples, SAMPLES), "spans": (spans, SPANS), "traces": (traces, TRACES)}
    rows = {
        name: as_rows(pa.Table.from_pylist(rows, schema=schema), name)
        for name, (rows, schema) in tables.items()
    }
    return StoredChunk(**rows, heatmaps=no_rows("heatmaps"))


def _span(key: str, index: int) -> Row:
    place = {"char_start": index, "char_end": index + 1, "token_start": index}
    return {
        "row_key": key,
        "span_index": index,
        "text": "A",
        **place,
        "token_end": index + 1,
        "signal": "attmean",
    }


def test_rows_find_their_samples() -> None:
    samples = _samples("s:0", "s:1", "s:2")
    samples[1] |= {"status": "error", "error_stage": "read", "error_code": "x", "message": "bad"}
    for row in samples:
        one = {"unit_id": 0, "kind": "sentence", "modality": "text", "part_index": 0, "text": "A."}
        row["units"] = [one]
    traces = [_trace(key, name, [0.5]) for key in ("s:0", "s:2") for name in ("attmean", "attraw")]
    chunk = _chunk(samples, [_span("s:2", 0), _span("s:2", 1)], traces)
    assert [chunk.signals(i) for i in range(3)] == [
        ["attmean", "attraw"],
        [],
        ["attmean", "attraw"],
    ]
    tags, notes = ("NOUN",), ("by rule",)
    assert chunk.segmentations() == [
        Segmentation((), tags, notes),
        None,
        Segmentation((Span(0, "A", 0, 1, 0, 1), Span(1, "A", 1, 2, 1, 2)), tags, notes),
    ]
    rows = views(chunk.state())
    assert [row.failed for row in rows] == [False, True, False]
    assert rows[2].row_key == "s:2"
    assert rows[2].fold("attraw").mass.tolist() == [[0.5]]
    # Peaks were not loaded, so they are NaN, not zero.
    assert rows[2].fold("attraw").peak.tolist() != rows[2].fold("attraw").peak.tolist()
    assert rows[2].positions is None
    assert chunk.state().field("error").to_pylist() == [
        None,
        {"stage": "read", "code": "x", "message": "bad"},
        None,
    ]


def test_rows_of_no_sample_or_in_another_order() -> None:
    samples = _samples("s:0", "s:1")
    with pytest.raises(RunError, match=r"has rows of s:9, which samples/ does not have"):
        _chunk(samples, [_span("s:9", 0)], []).segmentations()
    turned = [_trace(key, "attmean", [0.5]) for key in ("s:1", "s:0")]
    with pytest.raises(RunError, match=r"not in the order of samples/"):
        _chunk(samples, [], turned).state()
