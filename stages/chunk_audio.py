"""Third stage: speech in the sound tracks, and with it the source units of each sample."""

from __future__ import annotations

import time

import pyarrow as pa

from omnitrace_core.language import load_language
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, SpanOptions, UnitOptions
from omnitrace_core.reader import SampleReader
from stages import codec
from stages.chunk import Fields, StateRow, run_rows


class ChunkAudio:
    """Finds speech where units.audio asks for it, and cuts every sample into its source units."""

    def __init__(
        self,
        rules: MediaRules,
        media: MediaOptions,
        units: UnitOptions,
        asr: AsrOptions,
        spans: SpanOptions,
    ) -> None:
        self._reader = SampleReader(rules, media, units, asr, spans)
        # Loaded here and kept by the core, so that the first sample does not pay for it.
        load_language(spans.pipeline)

    def __call__(self, table: pa.Table) -> pa.Table:
        """One chunk: fills `speech`, `units`, `notes` and `speech_s`."""
        fields = ("speech", "units", "notes", "speech_s")
        return run_rows(table, "chunk_audio", self._cut, fields=fields)

    def _cut(self, row: StateRow) -> Fields:
        started = time.perf_counter()
        sample, media = row.sample, row.media
        speech = self._reader.speech(sample, media)
        ready = self._reader.ready(sample, media, speech)
        return {
            "speech": codec.encode_speech(speech),
            "units": codec.encode_units(ready.units),
            "notes": list(ready.notes),
            "speech_s": time.perf_counter() - started,
        }
