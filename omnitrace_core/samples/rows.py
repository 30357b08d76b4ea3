"""A sample row as plain dicts: one typed dict for each struct of a sample's Arrow schema.

A test compares the two field by field, so that a row of this shape can always be stored.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

Int32 = Annotated[int, "int32"]
Int64 = Annotated[int, "int64"]


class WordRow(TypedDict):
    """A word of a speech segment."""

    text: str | None
    start_s: float | None
    end_s: float | None


class SegmentRow(TypedDict):
    """A stretch of speech."""

    start_s: float | None
    end_s: float | None
    text: str | None
    words: list[WordRow | None] | None


class PartOptionsRow(TypedDict):
    """Media options of one part."""

    fps: float | None
    nframes: Int32 | None
    min_frames: Int32 | None
    max_frames: Int32 | None
    min_pixels: Int64 | None
    max_pixels: Int64 | None
    total_pixels: Int64 | None
    video_start: float | None
    video_end: float | None
    audio_start: float | None
    audio_end: float | None
    audio_track: Int32 | None


class FrameRow(TypedDict):
    """A frame of a video that is a list of pictures; `data` as of a part."""

    uri: str | None
    data: bytes | memoryview | None


class PartRow(TypedDict):
    """A content part; an unknown `type` is kept as it was found.

    data: bytes of inline media, or a view of them in memory that Arrow owns.
    """

    type: str | None
    text: str | None
    uri: str | None
    data: bytes | memoryview | None
    evidence: bool | None
    options: PartOptionsRow | None
    segments: list[SegmentRow | None] | None
    frames: list[FrameRow | None] | None


class MessageRow(TypedDict):
    """A chat turn."""

    role: str | None
    content: list[PartRow | None] | None


class LabelSourceRow(TypedDict):
    """A piece of reference evidence."""

    modality: str | None
    part_index: Int32 | None
    char_start: Int32 | None
    char_end: Int32 | None
    box: list[float | None] | None
    start_s: float | None
    end_s: float | None
    group: Int32 | None


class LabelRow(TypedDict):
    """Reference evidence of one statement."""

    statement: str | None
    char_start: Int32 | None
    char_end: Int32 | None
    sources: list[LabelSourceRow | None] | None


class SampleRow(TypedDict):
    """A sample as it is stored."""

    sample_id: str | None
    messages: list[MessageRow | None] | None
    response: str | None
    response_token_ids: list[Int32 | None] | None
    reference_answer: str | None
    options: list[str | None] | None
    labels: list[LabelRow | None] | None
    metadata: dict[str, str] | None


# The metadata key under which a row that could not be understood says why.
INGEST_ERROR = "ingest_error"
