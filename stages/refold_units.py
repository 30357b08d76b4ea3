"""Fold stored positions into other source units, without the model that traced them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedAudio, DecodedMedia
from omnitrace_core.errors import MediaError, MediaMissing, SampleError, TraceError
from omnitrace_core.options import UnitOptions
from omnitrace_core.positions import Positions
from omnitrace_core.reader import SampleReader
from omnitrace_core.records import Float32, Fold, Part, Sample, SourceUnit, SpeechChunk
from omnitrace_core.tracing.refold import refold
from omnitrace_core.units.assign import assign_units, unit_notes
from omnitrace_core.units.cut import SpeechByPart, build_units
from omnitrace_core.units.sound import speech_notes
from stages.arrow.chunk import INLINE_URI, StateRow
from stages.arrow.codec import encode_units
from stages.arrow.columns import list_array, offsets, replace_fields
from stages.full_addresses import FullAddresses
from stages.records.table_columns import folds_of

_CHUNK_KINDS = frozenset({"audio_chunk", "sound_chunk"})


@dataclass(frozen=True, slots=True)
class RefoldedSample:
    """A sample's new units and the folds into them.

    folds: by signal. old_notes, notes: on the old and on the new units.
    """

    units: tuple[SourceUnit, ...]
    folds: Mapping[str, Fold]
    old_notes: tuple[str, ...]
    notes: tuple[str, ...]


class UnitRefolder:
    """Cuts a stored sample's units with other settings and folds its stored rows into them.

    reader: with the new settings. old: the settings of the stored units. speech_settings: those
    that changed so that speech is looked for again; empty: it is taken from the stored units.
    addresses: of the media.
    """

    def __init__(
        self,
        reader: SampleReader,
        old: UnitOptions,
        signals: Sequence[str],
        speech_settings: Sequence[str],
        addresses: FullAddresses,
    ) -> None:
        self._reader = reader
        self._old = old
        self._signals = signals
        self._speech_settings = speech_settings
        self._addresses = addresses

    def refold(self, row: StateRow) -> RefoldedSample:
        """Fold one sample into its new units.

        Raises:
            TraceError: its positions were not stored.
            MediaError: speech is looked for again, and the sound is missing or has changed.
            SpeechError: the speech engine failed.
        """
        positions = row.positions
        if positions is None:
            raise TraceError("the positions of this sample were not stored")
        sample, extents = row.sample, row.extents
        stored_speech = _speech_of(row.units)
        speech = stored_speech
        if self._speech_settings:
            speech = self._find_speech(sample, row)
        units, notes = self._reader.cut_units(sample, extents, speech)
        # Only for the notes, which do not depend on the text.
        _, old_notes = build_units(sample, extents, stored_speech, lambda text: [], self._old)
        if self._speech_settings or self._reader.options.units.audio != "chunks":
            old_notes += tuple(note for index in extents for note in speech_notes(index))
        prompt = positions.prompt
        folds = {name: row.fold(name) for name in self._signals}
        selected = Positions(prompt, {name: positions.rows[name] for name in self._signals})
        return RefoldedSample(
            units=units,
            folds=refold(selected, folds, units),
            old_notes=old_notes + unit_notes(prompt, assign_units(prompt, row.units), row.units),
            notes=notes + unit_notes(prompt, assign_units(prompt, units), units),
        )

    def _find_speech(self, sample: Sample, row: StateRow) -> SpeechByPart:
        """The speech in every sound, which is decoded again from its address."""
        media: dict[int, DecodedMedia] = {}
        for info in row.media_info:
            index = int(info["part_index"])
            if not info["sound"]:
                continue
            if self._reader.options.asr.engine == "given":
                media[index] = _silence(info)
                continue
            try:
                media[index] = self._decode(sample.parts[index], info, row.row_key)
            except SampleError as error:
                raise type(error)(f"part {index}: {error.message}") from error
        return self._reader.find_speech(sample, media)

    def _decode(self, part: Part, info: Mapping[str, Any], row_key: str) -> DecodedMedia:
        if part.uri == INLINE_URI:
            changed = " and ".join(self._speech_settings)
            raise MediaMissing(
                "its sound came inline, and the bytes of inline media are not stored, so no speech "
                f"can be found in it; do not change {changed}, or run again"
            )
        uri, reason = self._addresses.find(row_key, int(info["part_index"]), part.uri)
        try:
            return self._decode_same(replace(part, uri=uri), info)
        except MediaError as error:
            if reason is None:
                raise
            raise type(error)(f"{error.message}; {reason}") from error

    def _decode_same(self, part: Part, info: Mapping[str, Any]) -> DecodedMedia:
        decoded = self._reader.decode_part(part)
        if decoded.sha256 != info["sha256"]:
            raise MediaError(
                f"{media_name(part)} is not the file that was traced (SHA-256 {info['sha256']} "
                f"then, {decoded.sha256} now); put the old one back, or run again"
            )
        return decoded


def _silence(info: Mapping[str, Any]) -> DecodedAudio:
    """Silence as long as the stored sound: the engine `given` only uses a sound's length."""
    start_s, end_s, rate = info["sound_start_s"], info["sound_end_s"], info["sample_rate"]
    # A view of one value takes no memory.
    waveform: Float32 = np.broadcast_to(np.float32(0), round((end_s - start_s) * rate))
    return DecodedAudio(waveform, rate, start_s, max(end_s, info["duration_s"]), info["sha256"])


def _speech_of(units: Sequence[SourceUnit]) -> SpeechByPart:
    """The speech chunks that units were cut from, by part index."""
    found: dict[int, list[SpeechChunk]] = {}
    for unit in units:
        if unit.kind in _CHUNK_KINDS and unit.start_s is not None and unit.end_s is not None:
            chunk = SpeechChunk(unit.start_s, unit.end_s, unit.transcript)
            found.setdefault(unit.part_index, []).append(chunk)
    return {index: tuple(chunks) for index, chunks in found.items()}


def with_folds(
    rows: pa.StructArray, refolded: Mapping[int, RefoldedSample], signals: Sequence[str]
) -> pa.StructArray:
    """STATE rows with new units and folds; rows that are not in `refolded` lose their folds.

    refolded: by row index, in order. The columns of positions are not copied.
    """
    stored = rows.field("trace")
    sample = np.fromiter(refolded, np.int64, len(refolded))
    new = [item.folds[name] for item in refolded.values() for name in signals]
    fold = replace_fields(
        folds_of(stored.field("folds"), sample, signals),
        {
            "mass": _float_lists([item.mass for item in new]),
            "peak": _float_lists([item.peak for item in new]),
            "markup": _float_lists([item.markup for item in new]),
            "uncovered": _float_lists([item.uncovered for item in new]),
        },
    )
    counts = dict.fromkeys(refolded, len(signals))
    folds = list_array(counts, len(rows), fold)
    old_units = rows.field("units")
    units = [
        encode_units(refolded[i].units) if i in refolded else old_units[i].as_py()
        for i in range(len(rows))
    ]
    return replace_fields(rows, {"trace": replace_fields(stored, {"folds": folds}), "units": units})


def _float_lists(arrays: Sequence[Float32]) -> pa.ListArray:
    """A list for each array, flattened by rows."""
    lengths = np.array([array.size for array in arrays], np.int64)
    values = np.concatenate([np.zeros(0, np.float32), *(array.ravel() for array in arrays)])
    return pa.ListArray.from_arrays(offsets(lengths), pa.array(values))
