"""The Arrow schema of the input: one row per sample.

It changes only by adding fields.
"""

from __future__ import annotations

import pyarrow as pa

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
        ("audio_track", pa.int32()),
    ]
)
# Of a video that is a list of pictures.
FRAME = pa.struct([("uri", pa.string()), ("data", pa.large_binary())])
PART = pa.struct(
    [
        ("type", pa.string()),
        ("text", pa.string()),
        ("uri", pa.string()),
        ("data", pa.large_binary()),
        ("evidence", pa.bool_()),
        ("options", PART_OPTIONS),
        ("segments", pa.list_(SEGMENT)),
        ("frames", pa.list_(FRAME)),
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

# Only REQUIRED_COLUMNS must be in the input; the other columns may be missing.
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
