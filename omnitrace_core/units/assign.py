"""Find the source unit of each prompt position.

A `PromptMap`, which a backend makes, says where every prompt position lies in the sample. Nothing
else of the prompt is needed, so masses can be folded into other units later, without the backend.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.positions import PositionKind, PromptMap
from omnitrace_core.records import SourceUnit, UnitKind

_STREAMS_OF_MODALITY: dict[str, tuple[int, ...]] = {
    "text": (PositionKind.TEXT,),
    "image": (PositionKind.IMAGE,),
    "audio": (PositionKind.AUDIO,),
    "video": (PositionKind.FRAMES, PositionKind.SOUND),
}
_STREAMS_OF_KIND: dict[str, tuple[int, ...]] = {
    "video_bin": (PositionKind.FRAMES,),
    "sound_bin": (PositionKind.SOUND,),
    "sound_chunk": (PositionKind.SOUND,),
}
_WHY_EMPTY: dict[str, str] = {"image_cell": "units.grid is finer than the tokens of this image"}
# Two units that cover a position equally but for this relative difference are tied.
_TIE = 1e-4
# Positions per step, which bounds the size of the table [positions, units].
_BLOCK = 512


def assign_units(prompt: PromptMap, units: Sequence[SourceUnit]) -> NDArray[np.int64]:
    """The unit of each prompt position, -1 for none: the unit that covers most of the position.

    Returns [P] int64. Of tied units, the lowest index wins. A position is never divided, so units
    that are smaller than positions (a fine image grid) may get none: see `empty_units`.
    """
    index = np.full(prompt.part.shape, -1, dtype=np.int64)
    groups: dict[tuple[int, int], list[SourceUnit]] = {}
    for unit in units:
        for stream in _STREAMS_OF_KIND.get(unit.kind, _STREAMS_OF_MODALITY[unit.modality]):
            groups.setdefault((unit.part_index, stream), []).append(unit)
    for (part, stream), members in groups.items():
        where = np.flatnonzero((prompt.part == part) & (prompt.stream == stream))
        if where.size == 0:
            continue
        for start in range(0, where.size, _BLOCK):
            block = where[start : start + _BLOCK]
            index[block] = _assign_block(prompt, block, members, stream)
    return index


def empty_units(unit_index: NDArray[np.int64], units: Sequence[SourceUnit]) -> list[int]:
    """Ids of the units that have no prompt position, so that they cannot get any mass.

    unit_index: [P], from `assign_units`.
    """
    filled = set(unit_index.tolist())
    return [unit.unit_id for unit in units if unit.unit_id not in filled]


def empty_unit_notes(unit_index: NDArray[np.int64], units: Sequence[SourceUnit]) -> tuple[str, ...]:
    """A note for each part and kind of unit with units that cannot get any mass.

    unit_index: [P], from `assign_units`.
    """
    empty = set(empty_units(unit_index, units))
    groups: dict[tuple[int, UnitKind], list[bool]] = {}
    for unit in units:
        groups.setdefault((unit.part_index, unit.kind), []).append(unit.unit_id in empty)
    return tuple(
        f"part {part}: {sum(is_empty)} of {len(is_empty)} units ({kind}) hold no token and can "
        f"never be a source; {_WHY_EMPTY.get(kind, 'they are shorter than a token')}"
        for (part, kind), is_empty in groups.items()
        if any(is_empty)
    )


def unit_notes(
    prompt: PromptMap, unit_index: NDArray[np.int64], units: Sequence[SourceUnit]
) -> tuple[str, ...]:
    """Notes on units that cannot get any mass, and on media positions whose mass gets no unit.

    unit_index: [P], from `assign_units`.
    """
    uncovered = prompt.part[prompt.is_media & (unit_index < 0)]
    return empty_unit_notes(unit_index, units) + tuple(
        f"part {part}: {np.count_nonzero(uncovered == part)} of "
        f"{np.count_nonzero(prompt.is_media & (prompt.part == part))} positions lie in no unit; "
        "their mass is counted as uncovered"
        for part in np.unique(uncovered).tolist()
    )


def _assign_block(
    prompt: PromptMap, where: NDArray[np.intp], units: Sequence[SourceUnit], stream: int
) -> NDArray[np.int64]:
    """The unit of some positions of one stream: [n_positions], -1 for none."""
    candidates = units if stream == PositionKind.IMAGE else _within(prompt, where, units, stream)
    if not candidates:
        return np.full(where.size, -1, dtype=np.int64)
    covered = _coverage(prompt, where, candidates, stream)
    most = covered.max(axis=1)
    # Boxes are float32, so equal coverages may differ by their rounding.
    best = (covered >= most[:, None] * (1 - _TIE)).argmax(axis=1)
    ids = np.asarray([unit.unit_id for unit in candidates], dtype=np.int64)[best]
    return np.where(most > 0, ids, -1)


def _within(
    prompt: PromptMap, where: NDArray[np.intp], units: Sequence[SourceUnit], stream: int
) -> list[SourceUnit]:
    """The units that overlap the range of text or time from the first position to the last."""
    low, high = prompt.lo[where].min(), prompt.hi[where].max()
    starts, ends = _edges(units, stream)
    return [units[int(j)] for j in np.flatnonzero((starts < high) & (ends > low))]


def _edges(units: Sequence[SourceUnit], stream: int) -> NDArray[np.float64]:
    """Starts and ends of units, [2, n_units]: in characters for text, in seconds otherwise."""
    if stream == PositionKind.TEXT:
        edges = [(unit.char_start, unit.char_end) for unit in units]
    else:
        edges = [(unit.start_s, unit.end_s) for unit in units]  # type: ignore[misc]
    return np.asarray(edges, dtype=np.float64).T


def _coverage(
    prompt: PromptMap, where: NDArray[np.intp], units: Sequence[SourceUnit], stream: int
) -> NDArray[np.float64]:
    """How much of each position lies in each unit: [n_positions, n_units], 0 without overlap.

    In characters, seconds or square pixels.
    """
    if stream == PositionKind.IMAGE:
        boxes = np.asarray([unit.box for unit in units], dtype=np.float64)
        cells = prompt.box[where].astype(np.float64)
        widths = _overlap(cells[:, 0], cells[:, 2], boxes[:, 0], boxes[:, 2])
        heights = _overlap(cells[:, 1], cells[:, 3], boxes[:, 1], boxes[:, 3])
        return widths * heights
    starts, ends = _edges(units, stream)
    return _overlap(prompt.lo[where], prompt.hi[where], starts, ends)


def _overlap(
    lo: NDArray[np.float64],
    hi: NDArray[np.float64],
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The length of the overlap of each [lo, hi] with each [starts, ends]: [n_lo, n_starts]."""
    shared: NDArray[np.float64] = np.minimum(hi[:, None], ends) - np.maximum(lo[:, None], starts)
    return shared.clip(min=0.0)
