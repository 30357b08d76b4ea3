"""Second stage: media by address or inline bytes -> frames, pixels and waveforms."""

from __future__ import annotations

import time

import pyarrow as pa

from omnitrace_core.media.rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, SpanOptions, UnitOptions
from omnitrace_core.reader import SampleReader
from stages import media_codec
from stages.chunk import Fields, StateRow, rows_of, run_rows, with_rows, without_inline_data
from stages.schema import STATE


class DecodeMedia:
    """Decodes each sample's media; what travels on is what the model will see, not the files.

    Decoders run in a child process of the actor: one that hangs or crashes costs its sample.
    """

    def __init__(
        self,
        rules: MediaRules,
        media: MediaOptions,
        units: UnitOptions,
        asr: AsrOptions,
        spans: SpanOptions,
    ) -> None:
        self._reader = SampleReader(rules, media, units, asr, spans, isolate=True)

    def __call__(self, table: pa.Table) -> pa.Table:
        """One chunk: fills `media`, `media_info` and `decode_s`; drops inline media bytes."""
        decoded = run_rows(
            table, "decode_media", self._decode, fields=("media", "media_info", "decode_s")
        )
        rows = rows_of(decoded)
        columns = {name: rows.field(name) for name in STATE.names}
        columns["sample"] = without_inline_data(columns["sample"])
        stripped = pa.StructArray.from_arrays(list(columns.values()), fields=list(STATE))
        return with_rows(decoded, stripped)

    def _decode(self, row: StateRow) -> Fields:
        started = time.perf_counter()
        sample = row.sample
        media = self._reader.decode(sample)
        return {
            "media": media_codec.encode_media(media),
            "media_info": media_codec.media_info(sample.parts, media, self._reader.rules),
            "decode_s": time.perf_counter() - started,
        }
