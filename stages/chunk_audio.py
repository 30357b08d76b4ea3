"""Third stage: speech in the sound tracks, and with it the source units of each sample."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from omnitrace_core.errors import Quarantined, SpeechError
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import DecodedImage, DecodedMedia, DecodedVideo, Sample
from omnitrace_core.text.language import load_language_without_torch
from omnitrace_core.units.cut import SpeechByPart
from stages.arrow import codec
from stages.arrow.chunk import Fields, StateRow, state_rows, with_results
from stages.guards.attempts import Attempt, AttemptLog, Attempts, Loading
from stages.guards.deadline import deadline
from stages.guards.row_guard import RowError, as_row_error, guarded

STAGE = "chunk_audio"
# Most bytes of decoded media that wait for each other: an hour of sound at 16 kHz is 220 MiB.
_MOST_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class _Loaded:
    row: StateRow
    sample: Sample
    media: Mapping[int, DecodedMedia]
    read_s: float

    @property
    def n_bytes(self) -> int:
        return sum(_n_bytes(item) for item in self.media.values())


class ChunkAudio:
    """Finds speech where units.audio asks for it, and cuts every sample into its source units.

    attempts: where attempts at a chunk with speech to find are counted before they begin, as a
    sound can kill the process that its model runs in. timeout_s: sounds that the engine hears
    together (from the third attempt on: those of a sample) for longer end the process, as if they
    had killed it.
    """

    def __init__(
        self,
        options: ReadingOptions,
        attempts: AttemptLog | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        counted = attempts if options.units.audio == "chunks" else None
        self._attempts = Attempts(STAGE, counted)
        self._reader = SampleReader(options)
        loading = Loading(f"asr.engine={options.asr.engine}", counted)
        self._given_up = loading.given_up
        if self._given_up:
            return
        with loading:
            # Here, so that the first sample does not pay for it, nor is blamed.
            self._reader.load()
            load_language_without_torch(options.spans.pipeline)

    def __call__(self, table: pa.Table) -> pa.Table:
        """One chunk: fills `speech`, `units`, `notes` and `speech_s`.

        An engine that hears in batches is given the sounds of several samples at once.
        """
        if self._given_up:
            raise self._given_up
        rows = state_rows(table)
        todo = [row for row in rows if not row.failed]
        attempt = self._attempts.begin(table.column("chunk_key")[0].as_py()) if todo else None
        results = self._work(todo, attempt) if attempt else {}
        fields = ("speech", "units", "notes", "speech_s")
        heard = with_results(table, [results.get(row.index) for row in rows], fields=fields)
        if attempt:
            attempt.done()
        return heard

    def _work(self, rows: Sequence[StateRow], attempt: Attempt) -> dict[int, Fields | RowError]:
        """What becomes of the samples, by row."""
        samples, read_s = self._read_ahead(rows)
        results: dict[int, Fields | RowError] = {}
        group: list[_Loaded] = []
        together = self._reader.hears_together and not attempt.one_by_one
        for row in rows:
            try:
                attempt.row(row.row_key)
            except Quarantined as error:
                results[row.index] = as_row_error(STAGE, error)
                continue
            loaded = guarded(STAGE, row.row_key, partial(_load, row, samples[row.index], read_s))
            if isinstance(loaded, RowError):
                results[row.index] = loaded
                continue
            group.append(loaded)
            if not together or sum(item.n_bytes for item in group) >= _MOST_BYTES:
                results |= self._cut(group)
                group = []
        return results | self._cut(group)

    def _read_ahead(self, rows: Sequence[StateRow]) -> tuple[dict[int, Sample], float]:
        """The samples by row, their texts read together; and the seconds that took for each."""
        started = time.perf_counter()
        # The first stage has parsed them before.
        samples = {row.index: row.sample for row in rows}
        # What goes wrong here goes wrong again for the sample that is to blame.
        guarded(STAGE, "reading ahead", partial(self._reader.read_ahead, samples.values()))
        return samples, (time.perf_counter() - started) / max(len(samples), 1)

    def _cut(self, group: Sequence[_Loaded]) -> dict[int, Fields | RowError]:
        """What becomes of some samples, by row."""
        if not group:
            return {}
        started = time.perf_counter()
        keys = ", ".join(item.row.row_key for item in group)
        asked = [(item.sample, item.media) for item in group]
        with deadline(self._timeout_s, f"the sounds of {len(group)} samples"):
            found = guarded(STAGE, keys, partial(self._reader.speech_of, asked))
        if isinstance(found, RowError):
            if len(group) == 1:
                return {group[0].row.index: found}
            # Nobody foresaw it, so nobody can say whose fault it is: one by one.
            return {index: made for item in group for index, made in self._cut([item]).items()}
        share_s = (time.perf_counter() - started) / len(group)
        return {
            item.row.index: guarded(
                STAGE, item.row.row_key, partial(self._fields, item, speech, share_s)
            )
            for item, speech in zip(group, found, strict=True)
        }

    def _fields(self, item: _Loaded, speech: SpeechByPart | SpeechError, heard_s: float) -> Fields:
        """The new columns of a sample. Raises: SpeechError, its own."""
        started = time.perf_counter()
        if isinstance(speech, SpeechError):
            raise speech
        ready = self._reader.ready(item.sample, item.media, speech)
        return {
            "speech": codec.encode_speech(speech),
            "units": codec.encode_units(ready.units),
            "notes": list(ready.notes),
            "speech_s": item.read_s + heard_s + time.perf_counter() - started,
        }


def _load(row: StateRow, sample: Sample, read_s: float) -> _Loaded:
    return _Loaded(row, sample, row.media, read_s)


def _n_bytes(item: DecodedMedia) -> int:
    if isinstance(item, DecodedVideo):
        return item.frames.nbytes + (0 if item.sound is None else item.sound.waveform.nbytes)
    return item.pixels.nbytes if isinstance(item, DecodedImage) else item.waveform.nbytes
