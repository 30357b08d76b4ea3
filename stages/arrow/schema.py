"""Every Arrow schema that crosses a stage boundary or lands on disk, written out, versioned.

Schemas change only by adding fields. Writers cast to these, so an all-null column keeps its type.
Between stages one row is one chunk of work: its key, its expected row count, and its samples as a
list of structs, so that nothing can split or merge a chunk on its way (see docs/decisions).

    SAMPLE          what a user hands in, one row per sample
    CHUNK_PLAN      a chunk to do: which rows of which shard
    STATE           one sample on its way through the stages, which fill its fields one by one
    RECORD          one finished sample with everything the tables hold of it
    SAMPLES, SPANS, TRACES, HEATMAPS   the published tables
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 2

_DICT = pa.dictionary(pa.int32(), pa.string())

WORD = pa.struct([("text", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())])
SEGMENT = pa.struct(
    [
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("text", pa.string()),
        ("words", pa.list_(WORD)),
    ]
)
PART_OPTIONS = pa.struct(
    [
        ("fps", pa.float64()),
        ("nframes", pa.int32()),
        ("min_frames", pa.int32()),
        ("max_frames", pa.int32()),
        ("min_pixels", pa.int64()),
        ("max_pixels", pa.int64()),
        ("total_pixels", pa.int64()),
        ("video_start", pa.float64()),
        ("video_end", pa.float64()),
        ("audio_start", pa.float64()),
        ("audio_end", pa.float64()),
    ]
)
PART = pa.struct(
    [
        ("type", pa.string()),
        ("text", pa.string()),
        ("uri", pa.string()),
        ("data", pa.large_binary()),
        ("evidence", pa.bool_()),
        ("options", PART_OPTIONS),
        ("segments", pa.list_(SEGMENT)),
    ]
)
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.list_(PART))])
BOX = pa.list_(pa.float32())
LABEL_SOURCE = pa.struct(
    [
        ("modality", pa.string()),
        ("part_index", pa.int32()),
        ("char_start", pa.int32()),
        ("char_end", pa.int32()),
        ("box", BOX),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("group", pa.int32()),
    ]
)
LABEL = pa.struct(
    [
        ("statement", pa.string()),
        ("char_start", pa.int32()),
        ("char_end", pa.int32()),
        ("sources", pa.list_(LABEL_SOURCE)),
    ]
)

# What a user hands in. Only sample_id and messages must be there; other columns may be missing.
SAMPLE = pa.schema(
    [
        ("sample_id", pa.string()),
        ("messages", pa.list_(MESSAGE)),
        ("response", pa.string()),
        ("response_token_ids", pa.list_(pa.int32())),
        ("reference_answer", pa.string()),
        ("options", pa.list_(pa.string())),
        ("labels", pa.list_(LABEL)),
        ("metadata", pa.map_(pa.string(), pa.string())),
    ]
)
REQUIRED_COLUMNS: tuple[str, ...] = ("sample_id", "messages")

# --- between stages ----------------------------------------------------------------------------

CHUNK_PLAN = pa.schema(
    [
        ("chunk_key", pa.string()),
        ("shard", pa.string()),
        ("uri", pa.string()),
        ("first_row", pa.int64()),
        ("n_rows", pa.int64()),
        ("identity", pa.string()),  # of the shard when it was planned
        (
            "duplicates",
            pa.list_(pa.struct([("row", pa.int64()), ("first_row_key", pa.string())])),
        ),
    ]
)
ERROR = pa.struct([("stage", pa.string()), ("code", pa.string()), ("message", pa.string())])
SOUND = pa.struct(
    [
        ("waveform", pa.large_binary()),  # float32, mono
        ("sample_rate", pa.int32()),
        ("start_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("sha256", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)
DECODED = pa.struct(
    [
        ("part_index", pa.int32()),
        ("type", pa.string()),
        ("pixels", pa.large_binary()),  # uint8 of `shape`: image [h, w, 3], video [n, h, w, 3]
        ("shape", pa.list_(pa.int32())),
        ("frame_times_s", pa.list_(pa.float64())),
        ("fps", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("sound", SOUND),
        ("sha256", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)
# What remains of a decoded media after the model has seen it: provenance, and its extent.
MEDIA_INFO = pa.struct(
    [
        ("part_index", pa.int32()),
        ("type", pa.string()),
        ("uri", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("duration_s", pa.float64()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("model_width", pa.int32()),
        ("model_height", pa.int32()),
        ("n_frames", pa.int32()),
        ("fps", pa.float64()),
        ("sample_rate", pa.int32()),
        ("sound", pa.bool_()),
        ("step_edges_s", pa.list_(pa.float64())),  # of a video's visual grid, n_steps + 1 edges
        ("sound_start_s", pa.float64()),
        ("sound_end_s", pa.float64()),
    ]
)
SPEECH = pa.struct([("part_index", pa.int32()), ("segments", pa.list_(SEGMENT))])
_UNIT_FIELDS: list[tuple[str, pa.DataType]] = [
    ("unit_id", pa.int32()),
    ("kind", pa.string()),
    ("modality", pa.string()),
    ("part_index", pa.int32()),
    ("text", pa.string()),
    ("char_start", pa.int32()),
    ("char_end", pa.int32()),
    ("box", BOX),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("transcript", pa.string()),
]
UNIT = pa.struct(_UNIT_FIELDS)
FLOATS = pa.list_(pa.float32())
# Rows over a long prompt may pass what 32-bit offsets reach, many samples in one array surely do.
ROWS = pa.large_list(pa.float32())
# Where each prompt position lies (`omnitrace_core.positions.PromptMap`).
PROMPT = pa.struct(
    [
        ("stream", pa.list_(pa.int8())),
        ("part", pa.list_(pa.int32())),
        ("lo", pa.list_(pa.float64())),
        ("hi", pa.list_(pa.float64())),
        ("box", FLOATS),  # [n_positions, 4] flattened by rows
    ]
)
FOLD = pa.struct(
    [
        ("signal", pa.string()),
        ("mass", FLOATS),  # [n_gen, n_units] flattened by rows; so is peak
        ("peak", FLOATS),
        ("markup", FLOATS),
        ("generated", FLOATS),
        ("rows", ROWS),  # [n_gen, n_positions] flattened by rows, if positions are kept
    ]
)
TRACE = pa.struct(
    [
        ("response", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.string())),
        ("char_starts", pa.list_(pa.int32())),
        ("char_ends", pa.list_(pa.int32())),
        ("logprobs", FLOATS),
        ("finish_reason", pa.string()),
        ("n_prompt_tokens", pa.int32()),
        ("folds", pa.list_(FOLD)),
        ("notes", pa.list_(pa.string())),
        ("prompt", PROMPT),  # null unless positions are kept
    ]
)
TRACED_BY = pa.struct(
    [
        ("model", pa.string()),
        ("revision", pa.string()),
        ("dtype", pa.string()),
        ("attention", pa.string()),
        ("device", pa.string()),
    ]
)
TIMINGS = pa.struct(
    [
        ("decode_s", pa.float64()),
        ("speech_s", pa.float64()),
        ("trace_s", pa.float64()),  # the chunk's wall time shared evenly among its traced samples
        ("replay_s", pa.float64()),  # of it, what tracing added to generating
        ("curate_s", pa.float64()),
    ]
)
STATE = pa.struct(
    [
        ("row_key", pa.string()),
        ("sample", pa.struct(list(SAMPLE))),
        ("error", ERROR),
        ("media_info", pa.list_(MEDIA_INFO)),
        ("media", pa.list_(DECODED)),
        ("speech", pa.list_(SPEECH)),
        ("units", pa.list_(UNIT)),
        ("notes", pa.list_(pa.string())),
        ("trace", TRACE),
        ("traced_by", TRACED_BY),
        ("decode_s", pa.float64()),
        ("speech_s", pa.float64()),
        ("trace_s", pa.float64()),
        ("replay_s", pa.float64()),
        ("attempts", pa.int32()),  # at tracing its chunk, the last one included
    ]
)

# --- on disk -----------------------------------------------------------------------------------


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
        ("messages", pa.list_(MESSAGE)),  # as handed in, without inline media bytes
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
        *_UNIT_FIELDS,
        ("mass", pa.float32()),
        ("share", pa.float32()),
        ("run", pa.float32()),
        ("score", pa.float32()),
        ("rank", pa.int32()),
    ]
)
# Where the mass of a span went; one column mass_<bucket> each. They add up to 1.
MASS_BUCKETS: tuple[str, ...] = (
    "text",
    "image",
    "audio",
    "video",
    "instruction",
    "markup",
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
        ("generated", FLOATS),
        ("notes", pa.list_(pa.string())),  # how the response was segmented
        # Null unless trace.store is positions.
        ("n_positions", pa.int32()),
        ("rows", ROWS),  # [n_tokens, n_positions] flattened by rows
        ("prompt", PROMPT),
    ],
)
# A picture is an image, or one temporal step of a video's frames.
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


def chunk_schema(of: pa.DataType) -> pa.Schema:
    """One row per chunk, its samples as a list of `of` (STATE on the way, RECORD at the end)."""
    return pa.schema(
        [
            ("chunk_key", pa.string()),
            ("shard", pa.string()),
            ("first_row", pa.int64()),
            ("n_rows", pa.int64()),
            ("samples", pa.list_(of)),
        ]
    )


# One part file is one chunk: a row per sample, nested.
CHUNK_FILE = pa.schema(list(RECORD), metadata={"omnitrace.schema_version": str(SCHEMA_VERSION)})
