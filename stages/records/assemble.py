"""A chunk's samples as finished records: what samples/ says of each, and its rows elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.options import TraceOptions
from stages.arrow.table_schema import RECORD, SAMPLES_ROW, SCHEMA_VERSION, TIMINGS
from stages.guards.row_guard import RowError
from stages.records.columns import record_columns
from stages.records.curator import Curation, Finished, Outcome


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made the records of a run."""

    fingerprint: str
    code_version: str


def assemble(
    rows: pa.StructArray,
    curation: Curation,
    trace: TraceOptions,
    provenance: Provenance,
) -> pa.StructArray:
    """STATE rows and what the last stage made of them, as RECORD rows; one per sample, always."""
    sample = _samples(rows, curation.outcomes, provenance)
    return as_records(sample, record_columns(rows, curation, trace))


def as_records(sample: pa.StructArray, columns: Mapping[str, pa.Array]) -> pa.StructArray:
    """SAMPLES_ROW structs and the columns beside them as RECORD rows."""
    arrays = {"sample": sample, **columns}
    return pa.StructArray.from_arrays([arrays[n] for n in RECORD.names], fields=list(RECORD))


def _samples(
    rows: pa.StructArray,
    outcomes: Sequence[Outcome],
    provenance: Provenance,
) -> pa.StructArray:
    n = len(rows)
    sample, trace = rows.field("sample"), rows.field("trace")
    errors = errors_of(rows, outcomes)
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
        "attempts": rows.field("attempts").fill_null(1),
        "notes": _notes(rows, outcomes),
        "timings": _timings(rows, outcomes),
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


def errors_of(rows: pa.StructArray, outcomes: Sequence[Outcome]) -> list[RowError | None]:
    """The error of each sample: of an earlier stage, or what became of it in the last one."""
    earlier = [value and RowError(**value) for value in rows.field("error").to_pylist()]
    return [
        late if isinstance(late, RowError) else old
        for old, late in zip(earlier, outcomes, strict=True)
    ]


def _notes(rows: pa.StructArray, outcomes: Sequence[Outcome]) -> list[list[str]]:
    """What every step had to say about the sample, in the order of the steps."""
    reading = rows.field("notes").to_pylist()
    tracing = pc.struct_field(rows.field("trace"), "notes").to_pylist()
    return [
        [*(first or ()), *(second or ()), *_segmentation_notes(last)]
        for first, second, last in zip(reading, tracing, outcomes, strict=True)
    ]


def _segmentation_notes(outcome: Outcome) -> tuple[str, ...]:
    return outcome.segmentation.notes if isinstance(outcome, Finished) else ()


def _timings(rows: pa.StructArray, outcomes: Sequence[Outcome]) -> pa.StructArray:
    curate_s = [item.curate_s if isinstance(item, Finished) else None for item in outcomes]
    earlier = [rows.field(name) for name in ("decode_s", "speech_s", "trace_s", "replay_s")]
    return pa.StructArray.from_arrays(
        [*earlier, pa.array(curate_s, pa.float64())], fields=list(TIMINGS)
    )
