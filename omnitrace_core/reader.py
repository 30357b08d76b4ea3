"""Turn a sample into what a backend takes: decode its media, find its speech, cut its units.

The traced model is not involved, so this half of the work runs on CPU actors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
)
from omnitrace_core.decoded_media import DecodedAudio, DecodedMedia, DecodedVideo
from omnitrace_core.errors import SpeechError
from omnitrace_core.media import SampleDecoder
from omnitrace_core.media.progress.media_times import MediaTimes, collecting_times
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, SpanOptions, UnitOptions
from omnitrace_core.records import Part, ReadySample, Sample, SourceUnit, SpeechChunk
from omnitrace_core.samples.sample_input import SampleInput, parse_input
from omnitrace_core.text.language import Language, load_language
from omnitrace_core.text.sentences import TextSpan, text_units, whole_text
from omnitrace_core.units.cut import SpeechByPart, build_units
from omnitrace_core.units.extents import Extent, extent_of


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
        parsed = parse_input(sample, number)
        return parsed if isinstance(parsed, ReadySample) else self.read(parsed)

    def read(self, sample: Sample) -> ReadySample:
        """Decode the media of a sample, find its speech and cut its units.

        Raises:
            MediaError: a part's media is missing, denied, too large, empty or corrupt.
            SpeechError: the speech engine failed on a sound.
            BackendError: a speech or embedding model cannot be loaded.
        """
        media = self.decode(sample)
        return self.make_ready(sample, media, self.find_speech(sample, media))

    def decode(self, sample: Sample) -> dict[int, DecodedMedia]:
        """Decoded media by part index. Raises: MediaError."""
        return self._decoder.decode_parts(sample.parts)

    def decode_timed(self, sample: Sample) -> tuple[dict[int, DecodedMedia], MediaTimes]:
        """As `decode`, and how long fetching and decoding took. Raises: MediaError."""
        with collecting_times() as times:
            media = self.decode(sample)
        return media, times

    def decode_part(self, part: Part) -> DecodedMedia:
        """One media part, in this process or in a child. Raises: MediaError."""
        return self._decoder.decode_part(part)

    @property
    def batches_speech(self) -> bool:
        """Whether `find_speech_batch` is faster on several samples than on one after the other."""
        return self.options.units.audio == "chunks" and isinstance(self._engine, BatchEngine)

    def find_speech(self, sample: Sample, media: Mapping[int, DecodedMedia]) -> SpeechByPart:
        """The speech chunks of each sound, by part index; empty unless `units.audio` is chunks.

        Raises:
            SpeechError: the speech engine failed on a sound.
            BackendError: a speech or embedding model cannot be loaded.
        """
        (speech,) = self.find_speech_batch([(sample, media)])
        if isinstance(speech, SpeechError):
            raise speech
        return speech

    def find_speech_batch(
        self, samples: Sequence[tuple[Sample, Mapping[int, DecodedMedia]]]
    ) -> list[SpeechByPart | SpeechError]:
        """As `find_speech`, for several samples, whose sounds may share the engine's batches.

        samples: each with its decoded media by part index. Where the engine failed on a sound, the
        result of its sample is that error.

        Raises:
            BackendError: a speech or embedding model cannot be loaded.
        """
        if self.options.units.audio != "chunks":
            return [{} for _ in samples]
        # Each sound with the number of its sample and the index of its part.
        sounds = [
            (number, index, PartAudio(sound, sample.parts[index]))
            for number, (sample, media) in enumerate(samples)
            for index, sound in _sounds(sample, media)
        ]
        results = find_segments(self._engine, [sound for _, _, sound in sounds])
        chunks: list[dict[int, tuple[SpeechChunk, ...]]] = [{} for _ in samples]
        errors: dict[int, SpeechError] = {}
        for (number, index, _), result in zip(sounds, results, strict=True):
            if isinstance(result, SpeechError):
                errors.setdefault(number, result)
            elif number not in errors:
                chunks[number][index] = self._chunker.chunks(result)
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


def _sounds(
    sample: Sample, media: Mapping[int, DecodedMedia]
) -> Iterator[tuple[int, DecodedAudio]]:
    """The decoded sound of each audio part and of each video with a sound track, by part index."""
    for index in range(len(sample.parts)):
        decoded = media.get(index)
        sound = decoded.sound if isinstance(decoded, DecodedVideo) else decoded
        if isinstance(sound, DecodedAudio):
            yield index, sound
