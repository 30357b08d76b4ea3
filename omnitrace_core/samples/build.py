"""Build a `Sample` from a checked row.

Nothing is checked here: `checks.check_row` has accepted the row before, in this process or in an
earlier stage of the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from omnitrace_core.records import (
    Box,
    Frame,
    Label,
    LabelSource,
    Message,
    Modality,
    Part,
    PartOptions,
    Sample,
    SpeechSegment,
    Word,
)
from omnitrace_core.samples.content import default_evidence
from omnitrace_core.samples.rows import (
    FrameRow,
    LabelRow,
    LabelSourceRow,
    MessageRow,
    PartOptionsRow,
    PartRow,
    SampleRow,
    SegmentRow,
    WordRow,
)

_NO_OPTIONS = PartOptions()


def build_sample(row: SampleRow) -> Sample:
    """The sample that a checked row describes; views of inline media are copied into bytes."""
    token_ids = row["response_token_ids"]
    return Sample(
        sample_id=cast(str, row["sample_id"]),
        messages=tuple(map(_message, cast("list[MessageRow]", row["messages"]))),
        response=row["response"],
        response_token_ids=None if token_ids is None else tuple(cast("list[int]", token_ids)),
        reference_answer=row["reference_answer"],
        options=tuple(cast("list[str]", row["options"] or ())),
        labels=tuple(map(_label, cast("list[LabelRow]", row["labels"] or ()))),
        metadata=dict(row["metadata"] or {}),
    )


def _message(row: MessageRow) -> Message:
    role = cast(str, row["role"])
    parts = cast("list[PartRow]", row["content"])
    return Message(role, tuple(_part(part, role) for part in parts))


def _part(row: PartRow, role: str) -> Part:
    kind, data, evidence = cast(Modality, row["type"]), row["data"], row["evidence"]
    return Part(
        type=kind,
        text=row["text"] or "",
        uri=row["uri"] or "",
        data=None if data is None else bytes(data),
        evidence=default_evidence(role, kind) if evidence is None else evidence,
        options=build_options(row["options"]),
        segments=_segments(row["segments"]),
        frames=tuple(map(_frame, cast("list[FrameRow]", row["frames"] or ()))),
    )


def _frame(row: FrameRow) -> Frame:
    data = row["data"]
    return Frame(row["uri"] or "", None if data is None else bytes(data))


def build_options(row: PartOptionsRow | None) -> PartOptions:
    """Media options of a part; without a row, none is set."""
    return _NO_OPTIONS if row is None else PartOptions(**row)


def _segments(rows: Sequence[SegmentRow | None] | None) -> tuple[SpeechSegment, ...] | None:
    if rows is None:
        return None
    return tuple(_segment(row) for row in cast("Sequence[SegmentRow]", rows))


def _segment(row: SegmentRow) -> SpeechSegment:
    start_s, end_s = cast(float, row["start_s"]), cast(float, row["end_s"])
    words = tuple(map(_word, cast("list[WordRow]", row["words"] or ())))
    return SpeechSegment(start_s, end_s, row["text"] or "", words)


def _word(row: WordRow) -> Word:
    return Word(cast(str, row["text"]), cast(float, row["start_s"]), cast(float, row["end_s"]))


def _label(row: LabelRow) -> Label:
    sources = tuple(map(_label_source, cast("list[LabelSourceRow]", row["sources"] or ())))
    return Label(row["statement"] or "", row["char_start"], row["char_end"], sources)


def _label_source(row: LabelSourceRow) -> LabelSource:
    box = row["box"]
    return LabelSource(
        modality=cast(Modality, row["modality"]),
        part_index=cast(int, row["part_index"]),
        char_start=row["char_start"],
        char_end=row["char_end"],
        box=None if box is None else cast(Box, tuple(box)),
        start_s=row["start_s"],
        end_s=row["end_s"],
        group=row["group"],
    )
