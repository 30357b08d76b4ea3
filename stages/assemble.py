"""What the published tables hold of a sample: its row, its spans and its stored traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.records import Attribution, Segmentation, Source, TokenTrace
from stages.codec import Row, encode_fold, encode_unit
from stages.guard import RowError
from stages.schema import (
    MASS_BUCKETS,
    RECORD,
    SAMPLES_ROW,
    SCHEMA_VERSION,
    TIMINGS,
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made the records of a run."""

    fingerprint: str
    code_version: str


@dataclass(frozen=True, slots=True)
class Finished:
    """One sample after the last stage: rows of spans/ and traces/, and its last numbers."""

    spans: list[Row]
    traces: list[Row]
    notes: tuple[str, ...]
    curate_s: float


def assemble(
    rows: pa.StructArray,
    finished: Sequence[Finished | RowError | None],
    provenance: Provenance,
) -> pa.StructArray:
    """STATE rows and what the last stage made of them, as RECORD rows; one per sample, always."""
    columns = {
        "sample": _samples(rows, finished, provenance),
        "spans": [item.spans if isinstance(item, Finished) else [] for item in finished],
        "traces": [item.traces if isinstance(item, Finished) else [] for item in finished],
    }
    arrays = [
        value if isinstance(value, pa.Array) else pa.array(value, RECORD.field(name).type)
        for name, value in columns.items()
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(RECORD))


def _samples(
    rows: pa.StructArray,
    finished: Sequence[Finished | RowError | None],
    provenance: Provenance,
) -> pa.StructArray:
    n = len(rows)
    sample, trace = rows.field("sample"), rows.field("trace")
    errors = _errors(rows, finished)
    given = {field.name: sample.field(field.name) for field in sample.type}
    token_ids = pc.struct_field(trace, "token_ids")
    known = {
        "row_key": rows.field("row_key"),
        "sample_id": given["sample_id"].fill_null(""),
        "status": ["ok" if error is None else "error" for error in errors],
        "response": pc.coalesce(pc.struct_field(trace, "response"), given["response"]),
        "response_token_ids": pc.coalesce(token_ids, given["response_token_ids"]),
        "finish_reason": pc.struct_field(trace, "finish_reason"),
        "n_prompt_tokens": pc.struct_field(trace, "n_prompt_tokens"),
        "n_generated_tokens": pc.list_value_length(token_ids),
        "units": rows.field("units"),
        "messages": given["messages"],
        "media": rows.field("media_info"),
        **{name: given[name] for name in ("reference_answer", "options", "labels", "metadata")},
        "error_stage": [error.stage if error else "" for error in errors],
        "error_code": [error.code if error else "" for error in errors],
        "message": [error.message if error else "" for error in errors],
        "attempts": [1] * n,
        "notes": _notes(rows, finished),
        "timings": _timings(rows, finished),
        "traced_by": rows.field("traced_by"),
        "code_version": [provenance.code_version] * n,
        "fingerprint": [provenance.fingerprint] * n,
        "schema_version": [SCHEMA_VERSION] * n,
    }
    arrays = [
        known[field.name]
        if isinstance(known[field.name], pa.Array)
        else pa.array(known[field.name], field.type)
        for field in SAMPLES_ROW
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(SAMPLES_ROW))


def _errors(
    rows: pa.StructArray, finished: Sequence[Finished | RowError | None]
) -> list[RowError | None]:
    earlier = [value and RowError(**value) for value in rows.field("error").to_pylist()]
    return [
        late if isinstance(late, RowError) else old
        for old, late in zip(earlier, finished, strict=True)
    ]


def _notes(rows: pa.StructArray, finished: Sequence[Finished | RowError | None]) -> list[list[str]]:
    """What every step had to say about the sample, in the order of the steps."""
    reading = rows.field("notes").to_pylist()
    tracing = pc.struct_field(rows.field("trace"), "notes").to_pylist()
    return [
        [*(first or ()), *(second or ()), *(last.notes if isinstance(last, Finished) else ())]
        for first, second, last in zip(reading, tracing, finished, strict=True)
    ]


def _timings(
    rows: pa.StructArray, finished: Sequence[Finished | RowError | None]
) -> pa.StructArray:
    curate_s = [item.curate_s if isinstance(item, Finished) else None for item in finished]
    earlier = [rows.field(name) for name in ("decode_s", "speech_s", "trace_s")]
    return pa.StructArray.from_arrays(
        [*earlier, pa.array(curate_s, pa.float64())], fields=list(TIMINGS)
    )


def span_rows(
    sample_id: str, row_key: str, signal: str, attributions: Sequence[Attribution]
) -> list[Row]:
    """Rows of spans/ for one sample."""
    return [
        {
            "sample_id": sample_id,
            "row_key": row_key,
            "span_index": item.span.index,
            "text": item.span.text,
            "char_start": item.span.char_start,
            "char_end": item.span.char_end,
            "token_start": item.span.token_start,
            "token_end": item.span.token_end,
            "outcome": item.outcome,
            "confidence": item.confidence,
            **{f"mass_{bucket}": item.masses[bucket] for bucket in MASS_BUCKETS},
            "signal": signal,
            "sources": [_source(source) for source in item.sources],
            "schema_version": SCHEMA_VERSION,
        }
        for item in attributions
    ]


def _source(source: Source) -> Row:
    return {
        **encode_unit(source.unit),
        "mass": source.mass,
        "share": source.share,
        "run": source.run,
        "score": source.score,
        "rank": source.rank,
    }


def trace_rows(
    sample_id: str, row_key: str, trace: TokenTrace, segmentation: Segmentation, n_units: int
) -> list[Row]:
    """Rows of traces/ for one sample: one per signal."""
    shared: Row = {
        "sample_id": sample_id,
        "row_key": row_key,
        "n_tokens": len(trace.token_ids),
        "n_units": n_units,
        "token_ids": list(trace.token_ids),
        "tokens": list(trace.tokens),
        "char_starts": [start for start, _ in trace.char_spans],
        "char_ends": [end for _, end in trace.char_spans],
        "logprobs": trace.logprobs,
        "pos": list(segmentation.pos),
        "notes": list(segmentation.notes),
        "schema_version": SCHEMA_VERSION,
    }
    return [
        {**shared, "signal": signal, **encode_fold(fold)} for signal, fold in trace.folds.items()
    ]
