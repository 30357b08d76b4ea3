"""Check that a fitted row is a valid sample.

A check raises InvalidSample with the place, the value and the remedy. Reference evidence:
`label_checks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import cast

from omnitrace_core.errors import InvalidSample, MissingSampleId, UnknownPartType
from omnitrace_core.records import PART_TYPES, PartOptions
from omnitrace_core.samples.build import build_options
from omnitrace_core.samples.forms import ID_KEYS
from omnitrace_core.samples.label_checks import check_labels
from omnitrace_core.samples.ranges import check_range
from omnitrace_core.samples.rows import (
    INGEST_ERROR,
    FrameRow,
    MessageRow,
    PartRow,
    SampleRow,
    SegmentRow,
    WordRow,
)
from omnitrace_core.samples.values import shorten

ROLES: tuple[str, ...] = ("system", "user", "assistant", "tool")


def check_row(row: SampleRow, misfits: Sequence[str] = ()) -> None:
    """Check a fitted row.

    misfits: problems found while the row was fitted.

    Raises:
        MissingSampleId: `sample_id` is null or blank.
        UnknownPartType: a content part is none of `PART_TYPES`.
        InvalidSample: the row cannot be answered or replayed for another reason, for example
            because ingest could not understand it.
    """
    sample_id, metadata = row["sample_id"], row["metadata"] or {}
    name = f"sample {shorten(sample_id)}" if sample_id else "sample without an id"
    reasons = [metadata[INGEST_ERROR]] if INGEST_ERROR in metadata else misfits
    if reasons:
        raise InvalidSample(f"{name}: {'; '.join(reasons)}; correct the input record")
    if sample_id is None or not sample_id.strip():
        raise MissingSampleId(
            f"{name}: sample_id is {sample_id!r}; give every sample a unique, non-empty text under "
            f"{' or '.join(ID_KEYS)}"
        )
    try:
        _check_sample(row)
    except InvalidSample as error:
        raise type(error)(f"{name}: {error.message}") from None


def _check_sample(row: SampleRow) -> None:
    messages = _checked_messages(row["messages"])
    response, token_ids = row["response"], row["response_token_ids"]
    if response is not None and not response.strip():
        raise InvalidSample(
            f"response is {shorten(response)}; give the text to replay, or null to generate one"
        )
    if token_ids is not None and (not token_ids or any(t is None or t < 0 for t in token_ids)):
        raise InvalidSample(
            f"response_token_ids is {shorten(token_ids)}; give the response's token ids, or null"
        )
    if response is None and token_ids is None and messages[-1]["role"] == "assistant":
        raise InvalidSample(
            "the last message is the assistant's and there is no response; give its text as "
            "`response`, or end with the message to be answered"
        )
    options = row["options"] or []
    if not all(options):
        raise InvalidSample(f"options is {shorten(options)}; give each option its text")
    if row["labels"]:
        parts = [part for message in messages for part in message["content"] or () if part]
        check_labels(row["labels"], parts, response)


def _checked_messages(rows: Sequence[MessageRow | None] | None) -> Sequence[MessageRow]:
    if not rows:
        raise InvalidSample(
            "there are no messages; give `messages` (chat) or `question` (reference format)"
        )
    n_parts = 0
    for i, row in enumerate(rows):
        role = row["role"] if row else None
        if row is None or role not in ROLES:
            raise InvalidSample(f"message {i}: role is {role!r}, not one of {', '.join(ROLES)}")
        content = row["content"]
        if not content:
            raise InvalidSample(f"message {i} ({role}) has no content; give it a part or remove it")
        for part in content:
            _check_part(part, f"part {n_parts}")  # the index that `part_index` holds
            n_parts += 1
    return cast("Sequence[MessageRow]", rows)


def _check_part(row: PartRow | None, where: str) -> None:
    kind = row["type"] if row else None
    if row is None or kind not in PART_TYPES:
        raise UnknownPartType(
            f"{where} is of type {shorten(kind)}; valid types are {', '.join(PART_TYPES)}"
        )
    if kind == "text":
        _check_text_part(row, where)
    else:
        _check_media_part(row, where)
    if row["options"] is not None:
        check_options(build_options(row["options"]), where, is_list=bool(row["frames"]))
    if row["segments"]:
        _check_segments(row["segments"], where)


def _check_text_part(row: PartRow, where: str) -> None:
    if not row["text"]:
        raise InvalidSample(f"{where} (text): text is {row['text']!r}; give it words or remove it")
    for name in ("uri", "data", "segments", "frames"):
        if row.get(name):
            raise InvalidSample(
                f"{where} (text) has {name} {shorten(row.get(name))}; put media into a separate "
                "part"
            )


def _check_media_part(row: PartRow, where: str) -> None:
    kind, uri, data, frames = row["type"], row["uri"], row["data"], row["frames"]
    if frames:
        _check_frames(row, frames, f"{where} ({kind})")
    elif not uri and data is None:
        if kind == "video" and frames is not None:
            raise InvalidSample(f"{where} (video) is an empty list of frames; give it frames")
        raise InvalidSample(f"{where} ({kind}) has neither uri nor data; give one of them")
    if uri and data is not None:
        raise InvalidSample(
            f"{where} ({kind}) has both uri {shorten(uri)} and data ({len(data):,} bytes); give one"
        )
    if row["text"]:
        raise InvalidSample(
            f"{where} ({kind}) has text {shorten(row['text'])}; put the text into a separate text "
            "part"
        )
    if kind == "image" and row["segments"]:
        raise InvalidSample(f"{where} (image) has speech segments; only audio and video have them")


def _check_frames(row: PartRow, frames: Sequence[FrameRow | None], where: str) -> None:
    """A list of frames is a whole video, and each frame is one picture."""
    if row["type"] != "video":
        raise InvalidSample(f"{where} has frames; only a video can be a list of them")
    if row["uri"] or row["data"] is not None:
        beside = f"uri {shorten(row['uri'])}" if row["uri"] else "data"
        raise InvalidSample(f"{where} has both frames and {beside}; give one")
    if row["segments"]:
        raise InvalidSample(
            f"{where} has speech segments, but a list of frames has no sound; put the sound into "
            "an audio part"
        )
    for i, frame in enumerate(frames):
        given = 0 if frame is None else bool(frame["uri"]) + (frame["data"] is not None)
        if given != 1:
            number = "both" if given else "neither"
            raise InvalidSample(f"{where}: frame {i} has {number} of uri and data; give one")


def check_options(options: PartOptions, where: str, *, is_list: bool = False) -> None:
    """Check that each media option is in its range and that no two contradict each other.

    is_list: the part is a list of frames, of which fps is the rate.

    Raises:
        InvalidSample: a value out of range, a reversed interval or range, fps beside nframes.
    """
    for field in fields(options):
        name, value = field.name, cast("float | None", getattr(options, field.name))
        may_be_0 = name.endswith(("_start", "_track"))
        lowest = "of 0 or more" if may_be_0 else "above 0"
        fine = value is None or (value >= 0 if may_be_0 else value > 0)
        if not fine or value == math.inf:
            raise InvalidSample(f"{where}: option {name} is {value}; give a number {lowest}")
    if options.fps is not None and options.nframes is not None and not is_list:
        raise InvalidSample(
            f"{where}: options fps={options.fps} and nframes={options.nframes} both set the number "
            "of frames; give one"
        )
    for low, high, may_equal in (
        ("video_start", "video_end", False),
        ("audio_start", "audio_end", False),
        ("min_frames", "max_frames", True),
        ("min_pixels", "max_pixels", True),
    ):
        first, last = getattr(options, low), getattr(options, high)
        if first is None or last is None or first < last or (may_equal and first == last):
            continue
        raise InvalidSample(f"{where}: options {low}={first} and {high}={last}; swap or drop one")


def _check_segments(rows: Sequence[SegmentRow | None], where: str) -> None:
    """Speech segments are sorted by start, and each ends after it starts."""
    previous_s = -math.inf
    for i, row in enumerate(rows):
        at = f"{where}.segments[{i}]"
        if row is None:
            raise InvalidSample(f"{at} is null; remove it")
        start_s = _check_times(row, at)
        if start_s < previous_s:
            raise InvalidSample(
                f"{at} starts at {start_s} s, before the previous one at "
                f"{previous_s} s; sort the segments by start_s"
            )
        previous_s = start_s
        for k, word in enumerate(row["words"] or ()):
            _check_word(word, f"{at}.words[{k}]")


def _check_word(row: WordRow | None, where: str) -> None:
    if row is None or not row["text"]:
        raise InvalidSample(f"{where} has no text; remove it")
    # Engines report very short words with equal start and end.
    _check_times(row, where, may_be_empty=True)


def _check_times(row: SegmentRow | WordRow, where: str, *, may_be_empty: bool = False) -> float:
    """Returns the start."""
    start_s, end_s = row["start_s"], row["end_s"]
    if start_s is None or end_s is None:
        raise InvalidSample(f"{where}: start_s is {start_s}, end_s is {end_s}; give both")
    if not (may_be_empty and start_s == end_s and 0 <= start_s < math.inf):
        check_range(start_s, end_s, f"{where}: seconds")
    return start_s
