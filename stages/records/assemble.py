"""Build the finished records of a chunk: each sample's row of samples/ and its other rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.options import TraceOptions
from stages.arrow.chunk import with_plain_addresses
from stages.arrow.table_schema import RECORD, SAMPLES_ROW, SCHEMA_VERSION, TIMINGS
from stages.guards.row_guard import RowError
from stages.records.curator import ChunkCuration, CuratedSample, SampleResult
from stages.records.table_columns import record_columns


@dataclass(frozen=True, slots=True)
class Provenance:
    """The configuration (`fingerprint`) and the code version that produced a run's records."""

    fingerprint: str
    code_version: str


def assemble(
    rows: pa.StructArray,
    curation: ChunkCuration,
    trace: TraceOptions,
    provenance: Provenance,
) -> pa.StructArray:
    """STATE rows and their curation as RECORD rows, exactly one for each sample."""
    sample = _samples(rows, curation.results, provenance)
    return as_records(sample, record_columns(rows, curation, trace))


def as_records(sample: pa.StructArray, columns: Mapping[str, pa.Array]) -> pa.StructArray:
    """SAMPLES_ROW structs and the other columns of RECORD as RECORD rows."""
    arrays = {"sample": sample, **columns}
    return pa.StructArray.from_arrays([arrays[n] for n in RECORD.names], fields=list(RECORD))


def _samples(
    rows: pa.StructArray,
    results: Sequence[SampleResult],
    provenance: Provenance,
) -> pa.StructArray:
    n = len(rows)
    sample, trace = rows.field("sample"), rows.field("trace")
    errors = errors_of(rows, results)
    input_ = {field.name: sample.field(field.name) for field in sample.type}
    token_ids = pc.struct_field(trace, "token_ids")
    columns = {
        "row_key": rows.field("row_key"),
        "sample_id": input_["sample_id"].fill_null(""),
        "status": ["ok" if error is None else "error" for error in errors],
        "response": pc.coalesce(pc.struct_field(trace, "response"), input_["response"]),
        "response_token_ids": pc.coalesce(token_ids, input_["response_token_ids"]),
        "finish_reason": pc.struct_field(trace, "finish_reason"),
        "n_prompt_tokens": pc.struct_field(trace, "n_prompt_tokens"),
        "n_generated_tokens": pc.list_value_length(token_ids),
        "units": rows.field("units"),
        "messages": with_plain_addresses(input_["messages"]),
        "media": with_plain_addresses(rows.field("media_info")),
        **{name: input_[name] for name in ("reference_answer", "options", "labels", "metadata")},
        "error_stage": [error.stage if error else "" for error in errors],
        "error_code": [error.code if error else "" for error in errors],
        "message": [error.message if error else "" for error in errors],
        "attempts": rows.field("attempts").fill_null(1),
        "notes": _notes(rows, results),
        "timings": _timings(rows, results),
        "traced_by": rows.field("traced_by"),
        "code_version": [provenance.code_version] * n,
        "fingerprint": [provenance.fingerprint] * n,
        "schema_version": [SCHEMA_VERSION] * n,
    }
    arrays = [
        columns[field.name]
        if isinstance(columns[field.name], pa.Array)
        else pa.array(columns[field.name], field.type)
        for field in SAMPLES_ROW
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(SAMPLES_ROW))


def errors_of(rows: pa.StructArray, results: Sequence[SampleResult]) -> list[RowError | None]:
    """The error of each sample, of an earlier stage or of curation; None where there is none."""
    earlier = [value and RowError(**value) for value in rows.field("error").to_pylist()]
    return [
        result if isinstance(result, RowError) else error
        for error, result in zip(earlier, results, strict=True)
    ]


def _notes(rows: pa.StructArray, results: Sequence[SampleResult]) -> list[list[str]]:
    """The notes of every step on each sample, in the order of the steps."""
    reading = rows.field("notes").to_pylist()
    tracing = pc.struct_field(rows.field("trace"), "notes").to_pylist()
    return [
        [*(first or ()), *(second or ()), *_segmentation_notes(last)]
        for first, second, last in zip(reading, tracing, results, strict=True)
    ]


def _segmentation_notes(result: SampleResult) -> tuple[str, ...]:
    return result.segmentation.notes if isinstance(result, CuratedSample) else ()


def _timings(rows: pa.StructArray, results: Sequence[SampleResult]) -> pa.StructArray:
    curate_s = [item.curate_s if isinstance(item, CuratedSample) else None for item in results]
    other_s = [rows.field(name) for name in ("decode_s", "speech_s", "trace_s", "replay_s")]
    timings = [*other_s, pa.array(curate_s, pa.float64()), rows.field("fetch_s")]
    return pa.StructArray.from_arrays(timings, fields=list(TIMINGS))
