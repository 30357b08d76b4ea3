"""Stored positions folded into other source units, without the model that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from omnitrace_core.addresses import media_name
from omnitrace_core.errors import MediaError, MediaMissing, SampleError, TraceError
from omnitrace_core.options import UnitOptions
from omnitrace_core.positions import Positions
from omnitrace_core.reader import SampleReader
from omnitrace_core.records import (
    DecodedAudio,
    DecodedMedia,
    Float32,
    Fold,
    Sample,
    SourceUnit,
    SpeechChunk,
)
from omnitrace_core.tracing.refold import refold
from omnitrace_core.units.assign import assign_units, empty_unit_notes
from omnitrace_core.units.cut import SpeechByPart, build_units
from stages.arrow.chunk import INLINE_URI, StateRow
from stages.arrow.codec import encode_units
from stages.arrow.columns import lists, offsets, replaced
from stages.records.columns import folds_of

_CHUNK_KINDS = frozenset({"audio_chunk", "sound_chunk"})


@dataclass(frozen=True, slots=True)
class Refolded:
    """A sample in its new units.

    folds: by signal. old_notes, notes: what the old and the new units give rise to.
    """

    units: tuple[SourceUnit, ...]
    folds: Mapping[str, Fold]
    old_notes: tuple[str, ...]
    notes: tuple[str, ...]


class UnitRefolder:
    """Cuts a stored sample's units with other settings and folds its stored rows into them.

    reader: with the new settings. old: the settings of the stored units. listens: whether speech
    has to be found again; otherwise it is what the stored units say.
    """

    def __init__(
        self, reader: SampleReader, old: UnitOptions, signals: Sequence[str], *, listens: bool
    ) -> None:
        self._reader = reader
        self._old = old
        self._signals = signals
        self._listens = listens

    def refold(self, row: StateRow) -> Refolded:
        """One sample.

        Raises:
            TraceError: its positions were not stored.
            MediaError: its sound is to be heard again, and cannot be had as it was.
            SpeechError: the speech engine failed.
        """
        positions = row.positions
        if positions is None:
            raise TraceError("the positions of this sample were not stored")
        sample, extents = row.sample, row.extents
        known = _speech_of(row.units)
        speech = self._hear(sample, row) if self._listens else known
        units, notes = self._reader.cut_units(sample, extents, speech)
        # For its notes alone, which do not depend on the text.
        _, old_notes = build_units(sample, extents, known, lambda text: [], self._old)
        prompt = positions.prompt
        folds = {name: row.fold(name) for name in self._signals}
        wanted = Positions(prompt, {name: positions.rows[name] for name in self._signals})
        return Refolded(
            units=units,
            folds=refold(wanted, folds, units),
            old_notes=old_notes + empty_unit_notes(assign_units(prompt, row.units), row.units),
            notes=notes + empty_unit_notes(assign_units(prompt, units), units),
        )

    def _hear(self, sample: Sample, row: StateRow) -> SpeechByPart:
        """Speech in every sound, read again from where it lies."""
        media: dict[int, DecodedMedia] = {}
        for info in row.media_info:
            index = int(info["part_index"])
            if not info["sound"]:
                continue
            if self._reader.options.asr.engine == "given":
                media[index] = _silence(info)
                continue
            try:
                media[index] = self._decode(sample, info)
            except SampleError as error:
                raise type(error)(f"part {index}: {error}") from error
        return self._reader.find_speech(sample, media)

    def _decode(self, sample: Sample, info: Mapping[str, Any]) -> DecodedMedia:
        part = sample.parts[info["part_index"]]
        if part.uri == INLINE_URI:
            raise MediaMissing(
                "its sound came inline, and the bytes of inline media are not stored, so no speech "
                "can be found in it; keep units.audio as it was, or run again"
            )
        decoded = self._reader.decode_part(part)
        if decoded.sha256 != info["sha256"]:
            raise MediaError(
                f"{media_name(part)} is not the file that was traced (SHA-256 {info['sha256']} "
                f"then, {decoded.sha256} now); put the old one back, or run again"
            )
        return decoded


def _silence(info: Mapping[str, Any]) -> DecodedAudio:
    """A sound as long as the stored one. Given segments are held against its length alone."""
    start_s, end_s, rate = info["sound_start_s"], info["sound_end_s"], info["sample_rate"]
    # One value seen many times: takes no memory.
    waveform: Float32 = np.broadcast_to(np.float32(0), round((end_s - start_s) * rate))
    return DecodedAudio(waveform, rate, start_s, max(end_s, info["duration_s"]), info["sha256"])


def _speech_of(units: Sequence[SourceUnit]) -> SpeechByPart:
    """The speech that units were cut from, by part index."""
    found: dict[int, list[SpeechChunk]] = {}
    for unit in units:
        if unit.kind in _CHUNK_KINDS and unit.start_s is not None and unit.end_s is not None:
            chunk = SpeechChunk(unit.start_s, unit.end_s, unit.transcript)
            found.setdefault(unit.part_index, []).append(chunk)
    return {index: tuple(chunks) for index, chunks in found.items()}


def with_folds(
    rows: pa.StructArray, refolded: Mapping[int, Refolded], signals: Sequence[str]
) -> pa.StructArray:
    """STATE rows with other units and folds; rows that `refolded` does not name lose their folds.

    refolded: by row, in their order. What is stored of positions stays as it lies in Arrow.
    """
    stored = rows.field("trace")
    sample = np.fromiter(refolded, np.int64, len(refolded))
    new = [item.folds[name] for item in refolded.values() for name in signals]
    fold = replaced(
        folds_of(stored.field("folds"), sample, signals),
        {
            "mass": _float_lists([item.mass for item in new]),
            "peak": _float_lists([item.peak for item in new]),
            "markup": _float_lists([item.markup for item in new]),
        },
    )
    counts = dict.fromkeys(refolded, len(signals))
    folds = lists(counts, len(rows), fold)
    old_units = rows.field("units")
    units = [
        encode_units(refolded[i].units) if i in refolded else old_units[i].as_py()
        for i in range(len(rows))
    ]
    return replaced(rows, {"trace": replaced(stored, {"folds": folds}), "units": units})


def _float_lists(arrays: Sequence[Float32]) -> pa.ListArray:
    """Each array flattened by rows, as a list."""
    lengths = np.array([array.size for array in arrays], np.int64)
    values = np.concatenate([np.zeros(0, np.float32), *(array.ravel() for array in arrays)])
    return pa.ListArray.from_arrays(offsets(lengths), pa.array(values))
