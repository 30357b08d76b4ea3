"""Cut a sample into source units.

Units are cut from the sample, the extents of its media and its speech chunks; neither the model nor
pixels are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from omnitrace_core.options import UnitOptions
from omnitrace_core.records import Modality, Part, Sample, SourceUnit, SpeechChunk, UnitKind
from omnitrace_core.units.extents import Extent
from omnitrace_core.units.sound import cut_sound, place_chunks, speech_notes

if TYPE_CHECKING:
    from omnitrace_core.text.sentences import TextSpan

# The speech chunks of each sound, by part index.
SpeechByPart = Mapping[int, tuple[SpeechChunk, ...]]
SplitText = Callable[[str], "Sequence[TextSpan]"]


def build_units(
    sample: Sample,
    extents: Mapping[int, Extent],
    speech: SpeechByPart,
    split_text: SplitText,
    options: UnitOptions,
) -> tuple[tuple[SourceUnit, ...], tuple[str, ...]]:
    """All source units of a sample in reading order, and notes on fallbacks.

    extents: of every media part, by part index.
    speech: used only if `options.audio` is chunks. Gaps between speech chunks are cut into time
    bins, and so is a sound without speech chunks, with a note.
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
        sound = extents[index].sound
        chunks: Sequence[SpeechChunk] = ()
        if options.audio == "chunks" and sound is not None:
            chunks, changes = place_chunks(sound, speech.get(index, ()))
            notes += speech_notes(index, changes)
            if not chunks:
                notes.append(f"part {index}: no speech found, its sound is cut into time bins")
        units.extend(_media_units(index, extents[index], chunks, options))
    return tuple(replace(unit, unit_id=i) for i, unit in enumerate(units)), tuple(notes)


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
        # The sound of a video may begin before its frames and end after them.
        edges = (extent.start_s, extent.end_s, *(extent.sound or ()))
        unit = _timed_unit(index, "instruction", extent.kind, min(edges), max(edges))
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
    for piece in cut_sound(sound, chunks, options.bin_s):
        kind = bin_kind if piece.transcript is None else chunk_kind
        unit = _timed_unit(index, kind, modality, piece.start_s, piece.end_s)
        yield replace(unit, transcript=piece.transcript or "")


def _timed_unit(
    index: int, kind: UnitKind, modality: Modality, start_s: float, end_s: float
) -> SourceUnit:
    return SourceUnit(
        unit_id=-1, kind=kind, modality=modality, part_index=index, start_s=start_s, end_s=end_s
    )


def candidate_units(units: Sequence[SourceUnit], instructions: str) -> list[int]:
    """Indices of the units that may be sources: all if `instructions` is include, else all but
    instructions."""
    return [
        j for j, unit in enumerate(units) if instructions == "include" or unit.kind != "instruction"
    ]
