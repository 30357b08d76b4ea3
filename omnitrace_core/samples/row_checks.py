"""The pieces of a row that have rules of their own: media options, speech segments, labels.

Each reader takes fitted values (`row_shape`) and returns records, or raises InvalidSample with the
place (`where`), the value met and the remedy; the caller adds the sample's id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import cast

from omnitrace_core.errors import InvalidSample
from omnitrace_core.records import (
    PART_TYPES,
    Box,
    Label,
    LabelSource,
    Modality,
    Part,
    PartOptions,
    SpeechSegment,
    Word,
)
from omnitrace_core.samples.row_shape import (
    LabelRow,
    LabelSourceRow,
    PartOptionsRow,
    SegmentRow,
    WordRow,
    clip,
)

# Modalities a label may name for each type of part: a video has pictures and sound.
_LABEL_MODALITIES: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("image",),
    "audio": ("audio",),
    "video": ("video", "audio"),
}


def read_options(row: PartOptionsRow | None, where: str) -> PartOptions:
    """Media options, each in its range and none against another.

    Raises:
        InvalidSample: a value out of range, a reversed interval or range, fps beside nframes.
    """
    if row is None:
        return PartOptions()
    options = PartOptions(**row)
    check_options(options, where)
    return options


def check_options(options: PartOptions, where: str) -> None:
    """Each in its range and none against another. Raises: InvalidSample, as `read_options`."""
    for field in fields(options):
        name, value = field.name, cast("float | None", getattr(options, field.name))
        lowest = "of 0 or more" if name.endswith("_start") else "above 0"
        fine = value is None or (value >= 0 if name.endswith("_start") else value > 0)
        if not fine or value == math.inf:
            raise InvalidSample(f"{where}: option {name} is {value}; give a number {lowest}")
    if options.fps is not None and options.nframes is not None:
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


def read_segments(
    rows: Sequence[SegmentRow | None] | None, where: str
) -> tuple[SpeechSegment, ...] | None:
    """Given speech segments, sorted by start; None if none are given.

    Raises:
        InvalidSample: a missing or bad time, an end that is not after its start, wrong order.
    """
    if rows is None:
        return None
    segments: list[SpeechSegment] = []
    for i, row in enumerate(rows):
        at = f"{where}.segments[{i}]"
        if row is None:
            raise InvalidSample(f"{at} is null; remove it")
        start_s, end_s = _times(row["start_s"], row["end_s"], at)
        if segments and start_s < segments[-1].start_s:
            raise InvalidSample(
                f"{at} starts at {start_s} s, before the one ahead of it at "
                f"{segments[-1].start_s} s; sort the segments by start_s"
            )
        words = tuple(_word(word, f"{at}.words[{k}]") for k, word in enumerate(row["words"] or ()))
        segments.append(SpeechSegment(start_s, end_s, row["text"] or "", words))
    return tuple(segments)


def read_labels(
    rows: Sequence[LabelRow | None] | None, parts: Sequence[Part], response: str | None
) -> tuple[Label, ...]:
    """Reference evidence, checked against the parts it names.

    Raises:
        InvalidSample: no statement and no range, a range outside the response or the part's text,
            a part that does not exist or is of another modality, a bad box or time.
    """
    labels: list[Label] = []
    for i, row in enumerate(rows or ()):
        where = f"labels[{i}]"
        if row is None:
            raise InvalidSample(f"{where} is null; remove it")
        start, end = row["char_start"], row["char_end"]
        if not row["statement"] and start is None:
            raise InvalidSample(
                f"{where} has neither a statement nor char_start; one of them must say which part "
                "of the response it is about"
            )
        _check_range(start, end, f"{where}: characters", response, "response")
        sources = tuple(
            _label_source(source, parts, f"{where}.sources[{k}]")
            for k, source in enumerate(row["sources"] or ())
        )
        labels.append(Label(row["statement"] or "", start, end, sources))
    return tuple(labels)


def _label_source(row: LabelSourceRow | None, parts: Sequence[Part], where: str) -> LabelSource:
    if row is None:
        raise InvalidSample(f"{where} is null; remove it")
    modality, index = row["modality"], row["part_index"]
    if modality not in PART_TYPES:
        raise InvalidSample(
            f"{where}: modality is {modality!r}, not one of {', '.join(PART_TYPES)}"
        )
    if index is None or not 0 <= index < len(parts):
        raise InvalidSample(
            f"{where}: part_index is {index}; the sample has parts 0 to {len(parts) - 1}"
        )
    part = parts[index]
    if modality not in _LABEL_MODALITIES[part.type]:
        raise InvalidSample(
            f"{where}: modality is {modality!r} but part {index} is {part.type}; correct one"
        )
    fields = {"text": ("char_start", "char_end"), "image": ("box",), "audio": ("start_s", "end_s")}
    allowed = fields.get(modality, ("start_s", "end_s", "box"))
    for name in ("char_start", "char_end", "box", "start_s", "end_s"):
        if name not in allowed and row.get(name) is not None:
            raise InvalidSample(
                f"{where}: {name} is {clip(row.get(name))}, which {modality} evidence does not have"
            )
    _check_range(row["char_start"], row["char_end"], f"{where}: characters", part.text, "part")
    _check_range(row["start_s"], row["end_s"], f"{where}: seconds")
    return LabelSource(
        modality=cast(Modality, modality),
        part_index=index,
        char_start=row["char_start"],
        char_end=row["char_end"],
        box=_box(row["box"], where),
        start_s=row["start_s"],
        end_s=row["end_s"],
        group=row["group"],
    )


def _box(values: Sequence[float | None] | None, where: str) -> Box | None:
    if values is None:
        return None
    known = [value for value in values if value is not None]
    if len(known) == len(values) == 4:
        x0, y0, x1, y1 = known
        if 0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf:
            return x0, y0, x1, y1
    raise InvalidSample(
        f"{where}: box is {clip(list(values))}; give [x0, y0, x1, y1] in pixels of the original "
        "image, x0 < x1 and y0 < y1"
    )


def _word(row: WordRow | None, where: str) -> Word:
    if row is None or not row["text"]:
        raise InvalidSample(f"{where} has no text; remove it")
    # Engines report very short words with equal start and end.
    start_s, end_s = _times(row["start_s"], row["end_s"], where, may_be_empty=True)
    return Word(row["text"], start_s, end_s)


def _times(
    start_s: float | None, end_s: float | None, where: str, may_be_empty: bool = False
) -> tuple[float, float]:
    if start_s is None or end_s is None:
        raise InvalidSample(f"{where}: start_s is {start_s}, end_s is {end_s}; give both")
    if not (may_be_empty and start_s == end_s and 0 <= start_s < math.inf):
        _check_range(start_s, end_s, f"{where}: seconds")
    return start_s, end_s


def _check_range(
    start: float | None,
    end: float | None,
    where: str,
    text: str | None = None,
    owner: str = "",
) -> None:
    """A half-open range, or none at all; within `text` where there is one."""
    if start is None and end is None:
        return
    if start is None or end is None or not 0 <= start < end < math.inf:
        raise InvalidSample(
            f"{where} [{start}, {end}) are no range; the start must be 0 or later, the end after it"
        )
    if text is not None and end > len(text):
        raise InvalidSample(
            f"{where} [{start}, {end}) go beyond the {owner}'s text of {len(text)} characters"
        )
