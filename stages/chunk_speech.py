"""Third stage: find speech in sounds, and cut each sample into its source units."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from omnitrace_core.decoded_media import DecodedImage, DecodedMedia, DecodedVideo
from omnitrace_core.errors import Quarantined, SpeechError
from omnitrace_core.reader import KnownSpeech, ReadingOptions, SampleReader
from omnitrace_core.records import Sample
from omnitrace_core.text.language import load_language_without_torch
from omnitrace_core.units.cut import SpeechByPart
from stages.arrow import codec
from stages.arrow.chunk import Fields, StateRow, state_rows, with_results
from stages.guards.attempts import Attempt, AttemptCounter, AttemptLog, CountedLoad
from stages.guards.deadline import deadline
from stages.guards.node_guard import naming_node_faults
from stages.guards.row_guard import RowError, as_row_error, guarded

STAGE = "chunk_audio"
# Decoded media of samples that are processed together; an hour of sound at 16 kHz is 220 MiB.
MAX_GROUP_BYTES = 256 * 1024**2

Results = dict[int, Fields | RowError]  # by row index


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A sample in Python. read_s: seconds spent on the texts of this sample."""

    row: StateRow
    sample: Sample
    media: Mapping[int, DecodedMedia]
    read_s: float

    @property
    def n_bytes(self) -> int:
        return sum(_n_bytes(item) for item in self.media.values())


class ChunkSpeech:
    """Finds speech if `units.audio` is chunks, and cuts every sample into its source units.

    attempts: counts attempts at a chunk in which speech is looked for, because a sound can kill the
    process that runs the speech model. timeout_s: the process ends if the engine takes longer for
    the sounds it gets at once (from the third attempt on: the sounds of one sample); that counts as
    a death.
    """

    def __init__(
        self,
        options: ReadingOptions,
        attempts: AttemptLog | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        log = attempts if options.units.audio == "chunks" else None
        self._attempts = AttemptCounter(STAGE, log)
        self._reader = SampleReader(options)
        load = CountedLoad(f"asr.engine={options.asr.engine}", log)
        self._refusal = load.refusal
        if self._refusal:
            return
        with load:
            # Now, so that the first sample neither pays for it nor is blamed for its failure.
            self._reader.load()
            load_language_without_torch(options.spans.pipeline)
        self._refusal = load.refusal

    @naming_node_faults(STAGE)
    def __call__(self, table: pa.Table) -> pa.Table:
        """Fill `speech`, `units`, `notes` and `speech_s` of a chunk.

        An engine that works in batches gets the sounds of several samples at once.
        """
        if self._refusal:
            raise self._refusal
        rows = state_rows(table)
        todo = [row for row in rows if not row.failed]
        attempt = self._attempts.begin(table.column("chunk_key")[0].as_py()) if todo else None
        results = self._process(todo, attempt) if attempt else {}
        fields = ("speech", "units", "notes", "speech_s")
        filled = with_results(table, [results.get(row.index) for row in rows], fields=fields)
        if attempt:
            attempt.finish()
        return filled

    def _process(self, rows: Sequence[StateRow], attempt: Attempt) -> Results:
        samples, results = _build_samples(rows)
        read_s = self._analyse_texts(samples.values())
        group: list[_Loaded] = []
        known: KnownSpeech = {}  # what samples share is processed once, also in different groups
        in_groups = self._reader.batches_speech and not attempt.one_by_one
        for row in rows:
            if row.index in results:
                continue
            try:
                attempt.announce(row.row_key)
            except Quarantined as error:
                results[row.index] = as_row_error(STAGE, error)
                continue
            loaded = guarded(STAGE, row.row_key, partial(_load, row, samples[row.index], read_s))
            if isinstance(loaded, RowError):
                results[row.index] = loaded
                continue
            group.append(loaded)
            if not in_groups or sum(item.n_bytes for item in group) >= MAX_GROUP_BYTES:
                results |= self._process_group(group, known)
                group = []
        return results | self._process_group(group, known)

    def _analyse_texts(self, samples: Collection[Sample]) -> float:
        """Analyse the texts of all samples in one batch. Returns the seconds per sample."""
        started = time.perf_counter()
        # A failure here is raised again by the sample that causes it.
        guarded(STAGE, "analysing texts", partial(self._reader.analyse_texts, samples))
        return (time.perf_counter() - started) / max(len(samples), 1)

    def _process_group(self, group: Sequence[_Loaded], known: KnownSpeech) -> Results:
        """Find the speech of some samples at once, then cut the units of each."""
        if not group:
            return {}
        started = time.perf_counter()
        keys = ", ".join(item.row.row_key for item in group)
        inputs = [(item.sample, item.media) for item in group]
        with deadline(self._timeout_s, f"finding speech in {len(group)} samples"):
            found = guarded(STAGE, keys, partial(self._reader.find_speech_batch, inputs, known))
        if isinstance(found, RowError):
            if len(group) == 1:
                return {group[0].row.index: found}
            # An unexpected error does not say which sample caused it: try them one by one.
            return {
                index: result
                for item in group
                for index, result in self._process_group([item], known).items()
            }
        speech_s = (time.perf_counter() - started) / len(group)
        return {
            item.row.index: guarded(
                STAGE, item.row.row_key, partial(self._fields, item, speech, speech_s)
            )
            for item, speech in zip(group, found, strict=True)
        }

    def _fields(self, item: _Loaded, speech: SpeechByPart | SpeechError, speech_s: float) -> Fields:
        """The new columns of a sample. Raises: SpeechError, if the engine failed on its sound."""
        started = time.perf_counter()
        if isinstance(speech, SpeechError):
            raise speech
        ready = self._reader.make_ready(item.sample, item.media, speech)
        return {
            "speech": codec.encode_speech(speech),
            "units": codec.encode_units(ready.units),
            "notes": list(ready.notes),
            "speech_s": item.read_s + speech_s + time.perf_counter() - started,
        }


def _build_samples(rows: Sequence[StateRow]) -> tuple[dict[int, Sample], Results]:
    """The samples, and the errors of those that cannot be built; both by row index."""
    samples: dict[int, Sample] = {}
    errors: Results = {}
    for row in rows:
        built = guarded(STAGE, row.row_key, partial(getattr, row, "sample"))
        if isinstance(built, RowError):
            errors[row.index] = built
        else:
            samples[row.index] = built
    return samples, errors


def _load(row: StateRow, sample: Sample, read_s: float) -> _Loaded:
    return _Loaded(row, sample, row.media, read_s)


def _n_bytes(item: DecodedMedia) -> int:
    if isinstance(item, DecodedVideo):
        return item.frames.nbytes + (0 if item.sound is None else item.sound.waveform.nbytes)
    return item.pixels.nbytes if isinstance(item, DecodedImage) else item.waveform.nbytes
