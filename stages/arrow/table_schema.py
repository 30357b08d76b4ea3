"""The Arrow schemas of the published tables, written out and versioned.

They change only by adding fields. Writers cast to them, so an all-null column keeps its type.

    SAMPLES, SPANS, TRACES, HEATMAPS   the published tables
    RECORD                             one finished sample with its rows of every table
    CHUNK_FILE                         a committed chunk's file: RECORD's fields as columns
"""

from __future__ import annotations

import pyarrow as pa

from stages.arrow.sample_schema import LABEL, MESSAGE
from stages.arrow.state_schema import FLOATS, MEDIA_INFO, PROMPT, ROWS, TRACED_BY, UNIT

SCHEMA_VERSION = 2

_DICT = pa.dictionary(pa.int32(), pa.string())

TIMINGS = pa.struct(
    [
        # Of the sample's media, one after another; without the start of the decoding process.
        ("decode_s", pa.float64()),
        ("speech_s", pa.float64()),
        ("trace_s", pa.float64()),  # the chunk's wall time shared evenly among its traced samples
        ("replay_s", pa.float64()),  # of it, what tracing added to generating
        ("curate_s", pa.float64()),
        # Reading media from files, stores and the web. A local video is read while it is decoded.
        ("fetch_s", pa.float64()),
    ]
)


def _published(table: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    """A published table's schema: its version as last column and, with its name, in the footer."""
    metadata = {"omnitrace.table": table, "omnitrace.schema_version": str(SCHEMA_VERSION)}
    return pa.schema([*fields, ("schema_version", pa.int32())], metadata=metadata)


SAMPLES = _published(
    "samples",
    [
        ("row_key", pa.string()),
        ("sample_id", pa.string()),
        ("status", _DICT),
        ("response", pa.string()),
        ("response_token_ids", pa.list_(pa.int32())),
        ("finish_reason", _DICT),
        ("n_prompt_tokens", pa.int32()),
        ("n_generated_tokens", pa.int32()),
        ("units", pa.list_(UNIT)),
        # Of the input, without the bytes of inline media; addresses without query and user part.
        ("messages", pa.list_(MESSAGE)),
        ("media", pa.list_(MEDIA_INFO)),
        ("reference_answer", pa.string()),
        ("options", pa.list_(pa.string())),
        ("labels", pa.list_(LABEL)),
        ("metadata", pa.map_(pa.string(), pa.string())),
        ("error_stage", _DICT),
        ("error_code", _DICT),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("notes", pa.list_(pa.string())),
        ("timings", TIMINGS),
        ("traced_by", TRACED_BY),
        ("code_version", _DICT),
        ("fingerprint", _DICT),
    ],
)
SOURCE = pa.struct(
    [
        *UNIT,
        ("mass", pa.float32()),
        ("share", pa.float32()),
        ("run", pa.float32()),
        ("score", pa.float32()),
        ("rank", pa.int32()),
    ]
)
# Where the mass of a span went; one column mass_<bucket> each. They add up to 1. mass_uncovered is
# null if the trace is of an older version: then mass_markup contains it.
MASS_BUCKETS: tuple[str, ...] = (
    "text",
    "image",
    "audio",
    "video",
    "instruction",
    "markup",
    "uncovered",
    "generated",
)
SPANS = _published(
    "spans",
    [
        ("sample_id", pa.string()),
        ("row_key", pa.string()),
        ("span_index", pa.int32()),
        ("text", pa.string()),
        ("char_start", pa.int32()),
        ("char_end", pa.int32()),
        ("token_start", pa.int32()),
        ("token_end", pa.int32()),
        ("outcome", _DICT),
        ("confidence", pa.float32()),
        *[(f"mass_{bucket}", pa.float32()) for bucket in MASS_BUCKETS],
        ("signal", _DICT),
        ("sources", pa.list_(SOURCE)),
    ],
)
TRACES = _published(
    "traces",
    [
        ("sample_id", pa.string()),
        ("row_key", pa.string()),
        ("signal", _DICT),
        ("n_tokens", pa.int32()),
        ("n_units", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.string())),
        ("char_starts", pa.list_(pa.int32())),
        ("char_ends", pa.list_(pa.int32())),
        ("logprobs", FLOATS),
        ("pos", pa.list_(pa.string())),
        ("mass", FLOATS),  # [n_tokens, n_units] flattened by rows; so is peak
        ("peak", FLOATS),
        ("markup", FLOATS),
        ("uncovered", FLOATS),  # null in traces of older versions, whose markup contains it
        ("generated", FLOATS),
        ("notes", pa.list_(pa.string())),  # how the response was segmented
        # Null unless trace.store is positions.
        ("n_positions", pa.int32()),
        ("rows", ROWS),  # [n_tokens, n_positions] flattened by rows
        ("prompt", PROMPT),
    ],
)
# One row per span and picture: an image, or one temporal step of a video's frames.
HEATMAPS = _published(
    "heatmaps",
    [
        ("sample_id", pa.string()),
        ("row_key", pa.string()),
        ("span_index", pa.int32()),
        ("signal", _DICT),
        ("part_index", pa.int32()),
        ("modality", _DICT),
        ("step", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("width", pa.int32()),  # of the original, in pixels; so is height
        ("height", pa.int32()),
        ("n_rows", pa.int32()),
        ("n_columns", pa.int32()),
        ("scale", pa.float32()),
        # [n_rows, n_columns] flattened by rows; the mass of a patch is patch * scale
        ("patches", pa.list_(pa.uint8())),
    ],
)
TABLES: dict[str, pa.Schema] = {
    "samples": SAMPLES,
    "spans": SPANS,
    "traces": TRACES,
    "heatmaps": HEATMAPS,
}


def _plain(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """The schema's fields with strings in place of dictionaries, for values inside lists."""
    return [
        (field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        for field in schema
    ]


SAMPLES_ROW = pa.struct(_plain(SAMPLES))
SPANS_ROW = pa.struct(_plain(SPANS))
TRACES_ROW = pa.struct(_plain(TRACES))
HEATMAPS_ROW = pa.struct(_plain(HEATMAPS))
RECORD = pa.struct(
    [
        ("sample", SAMPLES_ROW),
        ("spans", pa.list_(SPANS_ROW)),
        ("traces", pa.list_(TRACES_ROW)),
        ("heatmaps", pa.list_(HEATMAPS_ROW)),
    ]
)


# A chunk file holds one chunk, one nested row per sample.
CHUNK_FILE = pa.schema(list(RECORD), metadata={"omnitrace.schema_version": str(SCHEMA_VERSION)})
