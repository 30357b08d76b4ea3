"""Turn a sample into what a backend takes: decode its media, find its speech, cut its units.

The traced model is not involved, so this half of the work runs on CPU actors.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from omnitrace_core.asr import (
    BatchEngine,
    LoadableEngine,
    PartAudio,
    SpeechChunker,
    SpeechEngine,
    find_segments,
    load_engine,
    sound_key,
)
from omnitrace_core.decoded_media import DecodedAudio, DecodedMedia, DecodedVideo
from omnitrace_core.errors import SampleError, SpeechError
from omnitrace_core.media import SampleDecoder, SharedMedia
from omnitrace_core.media.progress.media_times import MediaTimes, collecting_times
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, SpanOptions, UnitOptions
from omnitrace_core.records import Part, ReadySample, Sample, SourceUnit, SpeechChunk
from omnitrace_core.samples.sample_input import SampleInput, parse_input
from omnitrace_core.text.language import Language, load_language
from omnitrace_core.text.sentences import TextSpan, text_units, whole_text
from omnitrace_core.units.cut import SpeechByPart, build_units
from omnitrace_core.units.extents import Extent, extent_of

# The speech chunks of sounds that were processed, or the engine's error, by `sound_key`.
KnownSpeech = dict[Hashable, tuple[SpeechChunk, ...] | SpeechError]


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """All settings that `SampleReader` depends on.

    rules: sizes and rates of the model's media. spans: names the language pipeline, which also cuts
    text parts into sentences.
    """

    rules: MediaRules
    media: MediaOptions = field(default_factory=MediaOptions)
    units: UnitOptions = field(default_factory=UnitOptions)
    asr: AsrOptions = field(default_factory=AsrOptions)
    spans: SpanOptions = field(default_factory=SpanOptions)


class SampleReader:
    """Decodes media, finds speech and cuts source units.

    isolate: whether media are decoded in a child process where `media.isolate` leaves it open.
    """

    def __init__(self, options: ReadingOptions, *, isolate: bool = False) -> None:
        self.options = options
        self._decoder = SampleDecoder(options.media, options.rules, isolate=isolate)

    def load(self) -> None:
        """Load the speech models that the settings need now, instead of at the first sound.

        Raises:
            BackendError: a speech or embedding model cannot be loaded.
            UnknownName: `asr.engine` is unknown, or the speech model does not know `asr.language`.
        """
        if self.options.units.audio != "chunks":
            return
        if isinstance(self._engine, LoadableEngine):
            self._engine.load()
        self._chunker.load()

    def read_input(self, sample: SampleInput, number: int = 1) -> ReadySample:
        """One sample in any accepted form; a `ReadySample` passes through.

        number: counted from 1; a mapping without an id is named `sample-<number>`.

        Raises:
            InvalidSample: it is not a valid sample.
            MediaError, SpeechError: see `read`.
        """
        (ready,) = self.read_inputs([sample], number)
        if isinstance(ready, SampleError):
            raise ready
        return ready

    def read_inputs(
        self, samples: Sequence[SampleInput], first_number: int = 1
    ) -> list[ReadySample | SampleError]:
        """As `read_input` for each sample; what several of them share is read once.

        Raises:
            BackendError: a speech or embedding model cannot be loaded.
        """
        results: list[Sample | ReadySample | SampleError] = []
        for number, sample in enumerate(samples, start=first_number):
            try:
                results.append(parse_input(sample, number))
            except SampleError as error:
                results.append(error)
        shared = SharedMedia(item.parts for item in results if isinstance(item, Sample))
        known: KnownSpeech = {}
        return [
            self._read_or_error(item, shared, known) if isinstance(item, Sample) else item
            for item in results
        ]

    def read(
        self,
        sample: Sample,
        shared: SharedMedia | None = None,
        known: KnownSpeech | None = None,
    ) -> ReadySample:
        """Decode the media of a sample, find its speech and cut its units.

        shared, known: of all samples that may share media with this one.

        Raises:
            MediaError: a part's media is missing, denied, too large, empty or corrupt.
            SpeechError: the speech engine failed on a sound.
            BackendError: a speech or embedding model cannot be loaded.
        """
        media = self.decode(sample, shared)
        return self.make_ready(sample, media, self.find_speech(sample, media, known))

    def _read_or_error(
        self, sample: Sample, shared: SharedMedia, known: KnownSpeech
    ) -> ReadySample | SampleError:
        try:
            return self.read(sample, shared, known)
        except SampleError as error:
            return error

    def decode(self, sample: Sample, shared: SharedMedia | None = None) -> dict[int, DecodedMedia]:
        """Decoded media by part index. Raises: MediaError.

        shared: of all samples that may share media with this one.
        """
        return self._decoder.decode_parts(sample.parts, shared)

    def decode_timed(
        self, sample: Sample, shared: SharedMedia | None = None
    ) -> tuple[dict[int, DecodedMedia], MediaTimes]:
        """As `decode`, and how long fetching and decoding took. Raises: MediaError.

        Of a shared medium, the sample that is decoded first has the times; the others have 0.
        """
        with collecting_times() as times:
            media = self.decode(sample, shared)
        return media, times

    def decode_part(self, part: Part) -> DecodedMedia:
        """One media part, in this process or in a child. Raises: MediaError."""
        return self._decoder.decode_part(part)

    @property
    def batches_speech(self) -> bool:
        """Whether `find_speech_batch` is faster on several samples than on one after the other."""
        return self.options.units.audio == "chunks" and isinstance(self._engine, BatchEngine)

    def find_speech(
        self,
        sample: Sample,
        media: Mapping[int, DecodedMedia],
        known: KnownSpeech | None = None,
    ) -> SpeechByPart:
        """The speech chunks of each sound, by part index; empty unless `units.audio` is chunks.

        known: as for `find_speech_batch`.

        Raises:
            SpeechError: the speech engine failed on a sound.
            BackendError: a speech or embedding model cannot be loaded.
        """
        (speech,) = self.find_speech_batch([(sample, media)], known)
        if isinstance(speech, SpeechError):
            raise speech
        return speech

    def find_speech_batch(
        self,
        samples: Sequence[tuple[Sample, Mapping[int, DecodedMedia]]],
        known: KnownSpeech | None = None,
    ) -> list[SpeechByPart | SpeechError]:
        """As `find_speech`, for several samples, whose sounds may share the engine's batches.

        samples: each with its decoded media by part index. Where the engine failed on a sound, the
        result of its sample is that error. known: the results of earlier calls, to which those of
        this call are added; a sound that is in it, or several times in this call, is not processed
        again.

        Raises:
            BackendError: a speech or embedding model cannot be loaded.
        """
        if self.options.units.audio != "chunks":
            return [{} for _ in samples]
        known = {} if known is None else known
        # Each sound with the number of its sample and the index of its part.
        sounds = [
            (number, index, PartAudio(sound, sample.parts[index]))
            for number, (sample, media) in enumerate(samples)
            for index, sound in _sounds(sample, media)
        ]
        keys = [sound_key(sound) for _, _, sound in sounds]
        new = {
            key: sound for key, (_, _, sound) in zip(keys, sounds, strict=True) if key not in known
        }
        results = find_segments(self._engine, list(new.values()))
        found = known | {
            key: result if isinstance(result, SpeechError) else self._chunker.chunks(result)
            for key, result in zip(new, results, strict=True)
        }
        known.update({key: _without_causes(found[key]) for key in new})
        chunks: list[dict[int, tuple[SpeechChunk, ...]]] = [{} for _ in samples]
        errors: dict[int, SpeechError] = {}
        for (number, index, _), key in zip(sounds, keys, strict=True):
            speech = found[key]
            if isinstance(speech, SpeechError):
                errors.setdefault(number, speech)
            else:
                chunks[number][index] = speech
        return [errors.get(number, speech) for number, speech in enumerate(chunks)]

    def make_ready(
        self, sample: Sample, media: Mapping[int, DecodedMedia], speech: SpeechByPart
    ) -> ReadySample:
        """Cut the units of a sample, and collect the notes of decoding and of cutting."""
        extents = {index: extent_of(item, self.options.rules) for index, item in media.items()}
        units, notes = self.cut_units(sample, extents, speech)
        media_notes = tuple(
            f"part {index}: {note}" for index, item in media.items() for note in item.notes
        )
        return ReadySample(sample=sample, media=media, units=units, notes=media_notes + notes)

    def analyse_texts(self, samples: Iterable[Sample]) -> None:
        """Analyse the texts of samples in batches, which makes `make_ready` faster."""
        if self.options.units.text == "sentence":
            parts = (part for sample in samples for part in sample.parts if part.evidence)
            self._language.analyse_batch(part.text for part in parts if part.text.strip())

    def cut_units(
        self, sample: Sample, extents: Mapping[int, Extent], speech: SpeechByPart
    ) -> tuple[tuple[SourceUnit, ...], tuple[str, ...]]:
        """Source units, and notes on fallbacks. Of media, only the extents are needed."""
        return build_units(sample, extents, speech, self._split_text, self.options.units)

    @cached_property
    def _engine(self) -> SpeechEngine:
        return load_engine(self.options.asr)

    @cached_property
    def _chunker(self) -> SpeechChunker:
        return SpeechChunker(self.options.asr)

    @cached_property
    def _language(self) -> Language:
        return load_language(self.options.spans.pipeline)

    def _split_text(self, text: str) -> list[TextSpan]:
        # Whole parts are cut without spaCy.
        if self.options.units.text == "part":
            return whole_text(text)
        return text_units(text, self._language)


def _without_causes(
    speech: tuple[SpeechChunk, ...] | SpeechError,
) -> tuple[SpeechChunk, ...] | SpeechError:
    """Speech to keep: an error without its traceback, whose frames hold waveforms."""
    return type(speech)(speech.message) if isinstance(speech, SpeechError) else speech


def _sounds(
    sample: Sample, media: Mapping[int, DecodedMedia]
) -> Iterator[tuple[int, DecodedAudio]]:
    """The decoded sound of each audio part and of each video with a sound track, by part index."""
    for index in range(len(sample.parts)):
        decoded = media.get(index)
        sound = decoded.sound if isinstance(decoded, DecodedVideo) else decoded
        if isinstance(sound, DecodedAudio):
            yield index, sound
