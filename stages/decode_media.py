"""Second stage: decode media, given by address or inline, to frames, pixels and waveforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa

from omnitrace_core.errors import Quarantined
from omnitrace_core.media import SharedMedia
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Part
from stages.arrow import media_codec
from stages.arrow.chunk import (
    Fields,
    StateRow,
    has_media,
    sample_structs,
    state_rows,
    with_results,
    with_rows,
    without_inline_data,
)
from stages.arrow.chunk_media import ChunkMediaWriter
from stages.arrow.state_schema import STATE
from stages.guards.attempts import Attempt, AttemptCounter, AttemptLog
from stages.guards.node_guard import naming_node_faults
from stages.guards.row_guard import RowError, as_row_error, guarded

STAGE = "decode_media"


class DecodeMedia:
    """Decodes each sample's media to what the model will see; the files themselves stay behind.

    Decoders run in a child process of the actor: one that hangs or crashes costs only its sample.

    attempts: counts attempts at a chunk that has media, because the decoded media of all its
    samples together can exceed the actor's memory.
    """

    def __init__(self, options: ReadingOptions, attempts: AttemptLog | None = None) -> None:
        self._attempts = attempts
        self._reader = SampleReader(options, isolate=True)

    @naming_node_faults(STAGE)
    def __call__(self, table: pa.Table) -> pa.Table:
        """Fill a chunk's media, their infos and times, and drop its inline media bytes.

        A medium that several samples share is fetched and decoded once; the first of them has its
        times.
        """
        rows = [row for row in state_rows(table) if not row.failed]
        # Text alone cannot kill the process.
        log = self._attempts if has_media(sample_structs(table).field("sample")) else None
        attempt = AttemptCounter(STAGE, log).begin(table.column("chunk_key")[0].as_py())
        writer = ChunkMediaWriter(len(sample_structs(table)))
        results = self._decode_all(rows, attempt, writer)
        decoded = with_results(
            table,
            [results.get(index) for index in range(len(sample_structs(table)))],
            fields=("media_info", "decode_s", "fetch_s"),
            columns={"media": writer.column()},
        )
        without_files = self._without_files(decoded)
        attempt.finish()
        return without_files

    def _decode_all(
        self, rows: Sequence[StateRow], attempt: Attempt, writer: ChunkMediaWriter
    ) -> dict[int, Fields | RowError]:
        """Decode a chunk's samples. Returns by row index all that is not in `writer` afterwards."""
        results: dict[int, Fields | RowError] = {}
        shared = SharedMedia(_parts_of(rows, results))
        for row in rows:
            if row.index not in results:
                results[row.index] = self._decode(row, attempt, shared, writer)
        return results

    def _decode(
        self, row: StateRow, attempt: Attempt, shared: SharedMedia, writer: ChunkMediaWriter
    ) -> Fields | RowError:
        try:
            attempt.announce(row.row_key)
        except Quarantined as error:
            shared.leave(row.sample.parts)
            return as_row_error(STAGE, error)
        return guarded(STAGE, row.row_key, partial(self._fields, row, shared, writer))

    def _fields(self, row: StateRow, shared: SharedMedia, writer: ChunkMediaWriter) -> Fields:
        sample = row.sample
        media, times = self._reader.decode_timed(sample, shared)
        infos = media_codec.media_info(sample.parts, media, self._reader.options.rules)
        writer.add(row.index, media)
        return {"media_info": infos, "decode_s": times.decode_s, "fetch_s": times.fetch_s}

    def _without_files(self, decoded: pa.Table) -> pa.Table:
        rows = sample_structs(decoded)
        columns = {name: rows.field(name) for name in STATE.names}
        columns["sample"] = without_inline_data(columns["sample"])
        stripped = pa.StructArray.from_arrays(list(columns.values()), fields=list(STATE))
        return with_rows(decoded, stripped)


def _parts_of(
    rows: Iterable[StateRow], results: dict[int, Fields | RowError]
) -> Iterator[Sequence[Part]]:
    """The parts of each sample; of one that cannot be built, its error goes to `results`."""
    for row in rows:
        sample = guarded(STAGE, row.row_key, partial(getattr, row, "sample"))
        if isinstance(sample, RowError):
            results[row.index] = sample
        else:
            yield sample.parts
