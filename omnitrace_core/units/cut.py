"""Cuts a sample into source units, and finds the unit of each prompt position.

Units are cut from the sample, the extents of its media and its speech chunks; neither the model nor
pixels are needed. A `PromptMap`, which a backend makes, says where every prompt position lies in
the sample. `assign_units` needs nothing else of the prompt, so masses can be folded into other
units later, without the backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.options import UnitOptions
from omnitrace_core.positions import PromptMap, Stream
from omnitrace_core.records import Modality, Part, Sample, SourceUnit, SpeechChunk, UnitKind
from omnitrace_core.units.extents import Extent

if TYPE_CHECKING:
    from omnitrace_core.text.sentences import TextSpan

# The speech chunks of each sound, by part index.
SpeechByPart = Mapping[int, tuple[SpeechChunk, ...]]
SplitText = Callable[[str], "Sequence[TextSpan]"]

_STREAMS_OF_MODALITY: dict[str, tuple[int, ...]] = {
    "text": (Stream.TEXT,),
    "image": (Stream.IMAGE,),
    "audio": (Stream.AUDIO,),
    "video": (Stream.FRAMES, Stream.SOUND),
}
_STREAMS_OF_KIND: dict[str, tuple[int, ...]] = {
    "video_bin": (Stream.FRAMES,),
    "sound_bin": (Stream.SOUND,),
    "sound_chunk": (Stream.SOUND,),
}
_WHY_EMPTY: dict[str, str] = {"image_cell": "units.grid is finer than the tokens of this image"}
# Two units that cover a position equally but for this relative difference are tied.
_TIE = 1e-4
# Positions per step, which bounds the size of the table [positions, units].
_BLOCK = 512
_AUDIO_TOKEN_S = 0.04


def build_units(
    sample: Sample,
    extents: Mapping[int, Extent],
    speech: SpeechByPart,
    split_text: SplitText,
    options: UnitOptions,
) -> tuple[tuple[SourceUnit, ...], tuple[str, ...]]:
    """All source units of a sample in reading order, and notes on fallbacks.

    extents: of every media part, by part index.
    speech: used only if `options.audio` is chunks. A sound without speech chunks is cut into time
    bins instead, with a note.
    split_text: the units of a text part.
    """
    units: list[SourceUnit] = []
    notes: list[str] = []
    for index, part in enumerate(sample.parts):
        if part.type == "text":
            units.extend(_text_units(index, part, split_text))
            continue
        if not part.evidence:
            units.append(_instruction_unit(index, extents[index]))
            continue
        chunks = speech.get(index, ()) if options.audio == "chunks" else ()
        units.extend(_media_units(index, extents[index], chunks, options))
        if options.audio == "chunks" and not chunks and extents[index].sound is not None:
            notes.append(f"part {index}: no speech found, its sound is cut into time bins")
    return tuple(replace(unit, unit_id=i) for i, unit in enumerate(units)), tuple(notes)


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


def _assign_block(
    prompt: PromptMap, where: NDArray[np.intp], units: Sequence[SourceUnit], stream: int
) -> NDArray[np.int64]:
    """The unit of some positions of one stream: [n_positions], -1 for none."""
    candidates = units if stream == Stream.IMAGE else _within(prompt, where, units, stream)
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
    if stream == Stream.TEXT:
        edges = [(unit.char_start, unit.char_end) for unit in units]
    else:
        edges = [(unit.start_s, unit.end_s) for unit in units]  # type: ignore[misc]
    return np.asarray(edges, dtype=np.float64).T


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


def _coverage(
    prompt: PromptMap, where: NDArray[np.intp], units: Sequence[SourceUnit], stream: int
) -> NDArray[np.float64]:
    """How much of each position lies in each unit: [n_positions, n_units], 0 without overlap.

    In characters, seconds or square pixels.
    """
    if stream == Stream.IMAGE:
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


def _text_units(index: int, part: Part, split_text: SplitText) -> Iterator[SourceUnit]:
    """Sentences and options of a text part; an instruction is one unit, however long."""
    if part.evidence:
        for span in split_text(part.text):
            yield _text_unit(index, part.text, span.start, span.end, span.kind)
        return
    text = part.text.strip()
    if text:
        start = part.text.index(text)
        yield _text_unit(index, part.text, start, start + len(text), "instruction")


def _text_unit(index: int, text: str, start: int, end: int, kind: UnitKind) -> SourceUnit:
    return SourceUnit(
        unit_id=-1,
        kind=kind,
        modality="text",
        part_index=index,
        text=text[start:end],
        char_start=start,
        char_end=end,
    )


def _instruction_unit(index: int, extent: Extent) -> SourceUnit:
    """Media of an instruction, such as an example picture, are one unit, and not a source."""
    if extent.kind == "image":
        unit = next(_image_units(index, extent, UnitOptions()))
    else:
        end = extent.end_s if extent.sound is None else max(extent.end_s, extent.sound[1])
        unit = _timed_unit(index, "instruction", extent.kind, extent.start_s, end)
    return replace(unit, kind="instruction")


def _media_units(
    index: int, extent: Extent, chunks: Sequence[SpeechChunk], options: UnitOptions
) -> Iterator[SourceUnit]:
    if extent.kind == "image":
        yield from _image_units(index, extent, options)
    for start, end in pairwise(extent.step_edges_s):
        yield _timed_unit(index, "video_bin", "video", start, end)
    if extent.sound is not None:
        modality: Literal["audio", "video"] = "audio" if extent.kind == "audio" else "video"
        yield from _sound_units(index, extent.sound, chunks, modality, options)


def _image_units(index: int, image: Extent, options: UnitOptions) -> Iterator[SourceUnit]:
    rows, columns = options.grid if options.image == "grid" else (1, 1)
    kind: UnitKind = "image_cell" if options.image == "grid" else "image"
    for row in range(rows):
        for column in range(columns):
            yield SourceUnit(
                unit_id=-1,
                kind=kind,
                modality="image",
                part_index=index,
                box=(
                    image.width * column / columns,
                    image.height * row / rows,
                    image.width * (column + 1) / columns,
                    image.height * (row + 1) / rows,
                ),
            )


def _sound_units(
    index: int,
    sound: tuple[float, float],
    chunks: Sequence[SpeechChunk],
    modality: Literal["audio", "video"],
    options: UnitOptions,
) -> Iterator[SourceUnit]:
    bin_kind: UnitKind = "audio_bin" if modality == "audio" else "sound_bin"
    chunk_kind: UnitKind = "audio_chunk" if modality == "audio" else "sound_chunk"
    if chunks:
        for chunk in chunks:
            unit = _timed_unit(index, chunk_kind, modality, chunk.start_s, chunk.end_s)
            yield replace(unit, transcript=chunk.text)
        return
    for start, end in time_bins(*sound, options.bin_s):
        yield _timed_unit(index, bin_kind, modality, start, end)


def _timed_unit(
    index: int, kind: UnitKind, modality: Modality, start_s: float, end_s: float
) -> SourceUnit:
    return SourceUnit(
        unit_id=-1, kind=kind, modality=modality, part_index=index, start_s=start_s, end_s=end_s
    )


def time_bins(start_s: float, end_s: float, bin_s: float) -> list[tuple[float, float]]:
    """[start, end) bins of `bin_s` seconds that tile [start_s, end_s]; the last may be shorter.

    A remainder below 0.04 s (one audio token) joins the bin before it.
    """
    n_bins = max(1, math.ceil((end_s - start_s - _AUDIO_TOKEN_S) / bin_s))
    edges = [start_s + k * bin_s for k in range(n_bins)] + [end_s]
    return list(pairwise(edges))


def candidate_units(units: Sequence[SourceUnit], instructions: str) -> list[int]:
    """Indices of the units that may be sources: all if `instructions` is include, else all but
    instructions."""
    return [
        j for j, unit in enumerate(units) if instructions == "include" or unit.kind != "instruction"
    ]
