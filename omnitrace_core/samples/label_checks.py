"""Check the labels of a fitted row: reference evidence for statements of the response."""

from __future__ import annotations

import math
from collections.abc import Sequence

from omnitrace_core.errors import InvalidSample
from omnitrace_core.records import PART_TYPES
from omnitrace_core.samples.ranges import check_range
from omnitrace_core.samples.rows import LabelRow, LabelSourceRow, PartRow
from omnitrace_core.samples.values import shorten

# Modalities a label may name for each type of part: a video has pictures and sound.
_LABEL_MODALITIES: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("image",),
    "audio": ("audio",),
    "video": ("video", "audio"),
}
# Fields that say where evidence of a modality lies.
_PLACE_FIELDS: dict[str, tuple[str, ...]] = {
    "text": ("char_start", "char_end"),
    "image": ("box",),
    "audio": ("start_s", "end_s"),
    "video": ("start_s", "end_s", "box"),
}


def check_labels(
    rows: Sequence[LabelRow | None], parts: Sequence[PartRow], response: str | None
) -> None:
    """Check reference evidence against the response and the parts it names.

    Raises:
        InvalidSample: no statement and no range, a range outside the response or the part's text,
            a part that does not exist or is of another modality, a bad box or time.
    """
    for i, row in enumerate(rows):
        where = f"labels[{i}]"
        if row is None:
            raise InvalidSample(f"{where} is null; remove it")
        start, end = row["char_start"], row["char_end"]
        if not row["statement"] and start is None:
            raise InvalidSample(
                f"{where} has neither a statement nor char_start; one of them must say which part "
                "of the response it is about"
            )
        check_range(start, end, f"{where}: characters", response, "response")
        for k, source in enumerate(row["sources"] or ()):
            _check_source(source, parts, f"{where}.sources[{k}]")


def _check_source(row: LabelSourceRow | None, parts: Sequence[PartRow], where: str) -> None:
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
    if modality not in _LABEL_MODALITIES[part["type"] or ""]:
        raise InvalidSample(
            f"{where}: modality is {modality!r} but part {index} is {part['type']}; correct one"
        )
    for name in ("char_start", "char_end", "box", "start_s", "end_s"):
        if name not in _PLACE_FIELDS[modality] and row.get(name) is not None:
            raise InvalidSample(
                f"{where}: {name} is {shorten(row.get(name))}, which {modality} evidence does "
                "not have"
            )
    text = part["text"] or ""
    check_range(row["char_start"], row["char_end"], f"{where}: characters", text, "part")
    check_range(row["start_s"], row["end_s"], f"{where}: seconds")
    _check_box(row["box"], where)


def _check_box(values: Sequence[float | None] | None, where: str) -> None:
    if values is None:
        return
    known = [value for value in values if value is not None]
    if len(known) == len(values) == 4:
        x0, y0, x1, y1 = known
        if 0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf:
            return
    raise InvalidSample(
        f"{where}: box is {shorten(list(values))}; give [x0, y0, x1, y1] in pixels of the original "
        "image, x0 < x1 and y0 < y1"
    )
