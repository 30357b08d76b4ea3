"""The Arrow schemas of chunks between stages; the stages fill STATE's fields one after another.

One row is one chunk of work: its key, its expected number of samples, and the samples as a list of
structs, so that nothing can split or merge a chunk between stages (decision 005).
"""

from __future__ import annotations

import pyarrow as pa

from stages.arrow.sample_schema import BOX, SAMPLE, SEGMENT

CHUNK_PLAN = pa.schema(
    [
        ("chunk_key", pa.string()),
        ("shard", pa.string()),
        ("uri", pa.string()),
        ("first_row", pa.int64()),
        ("n_rows", pa.int64()),
        ("rows", pa.list_(pa.int64())),  # row numbers; null: n_rows rows from first_row on
        ("identity", pa.string()),  # of the shard's file when it was planned
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
        # The sample (by its index) and part with the same medium; all that follows is then null.
        ("same_as", pa.struct([("row", pa.int32()), ("part_index", pa.int32())])),
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
# Kept of decoded media after the model has seen them: provenance and extent.
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
UNIT = pa.struct(
    [
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
)
FLOATS = pa.list_(pa.float32())
# Rows over a long prompt, and of many samples in one array, can exceed 32-bit offsets.
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
        ("uncovered", FLOATS),  # null in traces of older versions, whose markup contains it
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
        ("attempts", pa.int32()),  # at tracing the sample's chunk, the last one included
        ("fetch_s", pa.float64()),
    ]
)


def chunk_schema(sample_type: pa.DataType) -> pa.Schema:
    """One row per chunk with its samples as a list (of STATE between stages, RECORD at the end)."""
    return pa.schema(
        [
            ("chunk_key", pa.string()),
            ("shard", pa.string()),
            ("first_row", pa.int64()),
            ("n_rows", pa.int64()),
            ("rows", pa.list_(pa.int64())),
            ("samples", pa.list_(sample_type)),
        ]
    )
