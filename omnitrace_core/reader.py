"""From a sample to what a backend takes: decode its media, find its speech, cut its units.

No model weights are involved, so this half of the work runs on CPU actors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from omnitrace_core.asr import (
    BatchEngine,
    LoadableEngine,
    PartAudio,
    SpeechEngine,
    find_segments,
    load_engine,
)
from omnitrace_core.asr.chunking.chunker import SpeechChunker
from omnitrace_core.errors import SpeechError
from omnitrace_core.media import MediaDecoder
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, SpanOptions, UnitOptions
from omnitrace_core.records import (
    DecodedAudio,
    DecodedMedia,
    DecodedVideo,
    Part,
    ReadySample,
    Sample,
    SourceUnit,
    SpeechChunk,
)
from omnitrace_core.samples.inputs import SampleInput, parse_input
from omnitrace_core.text.language import Language, load_language
from omnitrace_core.text.sentences import TextSpan, text_units
from omnitrace_core.units.cut import SpeechByPart, build_units
from omnitrace_core.units.extents import Extent, extent_of


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """All settings on which the reading of a sample depends.

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
        self._decoder = MediaDecoder(options.media, options.rules, isolate=isolate)

    def load(self) -> None:
        """Load the models of speech now, if any are asked for, and not with the first sound.

        Raises:
            BackendError: a speech or embedding model cannot be loaded.
            UnknownName: the speech model does not know the language.
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
        """All three steps for one sample.

        Raises:
            MediaError: a part's media is missing, denied, too large, empty or corrupt.
            SpeechError: the speech engine failed.
        """
        media = self.decode(sample)
        return self.ready(sample, media, self.speech(sample, media))

    def decode(self, sample: Sample) -> dict[int, DecodedMedia]:
        """Decoded media by part index. Raises: MediaError."""
        return self._decoder.decode_parts(sample.parts)

    def decode_part(self, part: Part) -> DecodedMedia:
        """One media part, in this process or in a child. Raises: MediaError."""
        return self._decoder.decode_part(part)

    @property
    def hears_together(self) -> bool:
        """Whether `speech_of` does better with several samples than with one after the other."""
        return self.options.units.audio == "chunks" and isinstance(self._engine, BatchEngine)

    def speech(self, sample: Sample, media: Mapping[int, DecodedMedia]) -> SpeechByPart:
        """Chunks of speech by part index; empty unless `units.audio` is chunks.

        Raises:
            SpeechError: the speech engine failed on a sound.
            BackendError: a speech or embedding model cannot be loaded.
        """
        (found,) = self.speech_of([(sample, media)])
        if isinstance(found, SpeechError):
            raise found
        return found

    def speech_of(
        self, samples: Sequence[tuple[Sample, Mapping[int, DecodedMedia]]]
    ) -> list[SpeechByPart | SpeechError]:
        """As `speech` for each of some samples, whose sounds may share the engine's batches.

        A sample with a sound that the engine fails on has that error in its place.

        Raises:
            BackendError: a speech or embedding model cannot be loaded.
        """
        if self.options.units.audio != "chunks":
            return [{} for _ in samples]
        asked = [
            (number, index, PartAudio(sound, sample.parts[index]))
            for number, (sample, media) in enumerate(samples)
            for index, sound in _sounds(sample, media)
        ]
        heard = find_segments(self._engine, [sound for _, _, sound in asked])
        chunks: list[dict[int, tuple[SpeechChunk, ...]]] = [{} for _ in samples]
        errors: dict[int, SpeechError] = {}
        for (number, index, _), segments in zip(asked, heard, strict=True):
            if isinstance(segments, SpeechError):
                errors.setdefault(number, segments)
            elif number not in errors:
                chunks[number][index] = self._chunker.chunks(segments)
        return [errors.get(number, found) for number, found in enumerate(chunks)]

    def ready(
        self,
        sample: Sample,
        media: Mapping[int, DecodedMedia],
        speech: SpeechByPart,
    ) -> ReadySample:
        """Cut the units and collect the notes of every step."""
        extents = {index: extent_of(item, self.options.rules) for index, item in media.items()}
        units, notes = self.cut_units(sample, extents, speech)
        decoding = tuple(
            f"part {index}: {note}" for index, item in media.items() for note in item.notes
        )
        return ReadySample(sample=sample, media=media, units=units, notes=decoding + notes)

    def read_ahead(self, samples: Iterable[Sample]) -> None:
        """Read the texts of samples together, which `ready` is given next; that is faster."""
        if self.options.units.text == "sentence":
            parts = (part for sample in samples for part in sample.parts if part.evidence)
            self._language.analyse_batch(part.text for part in parts if part.text.strip())

    def cut_units(
        self, sample: Sample, extents: Mapping[int, Extent], speech: SpeechByPart
    ) -> tuple[tuple[SourceUnit, ...], tuple[str, ...]]:
        """Source units from the extents of media alone, and notes on fallbacks."""
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
        return text_units(text, self._language, self.options.units.text)


def _sounds(
    sample: Sample, media: Mapping[int, DecodedMedia]
) -> Iterator[tuple[int, DecodedAudio]]:
    """Sounds and sound tracks by part index."""
    for index in range(len(sample.parts)):
        decoded = media.get(index)
        sound = decoded.sound if isinstance(decoded, DecodedVideo) else decoded
        if isinstance(sound, DecodedAudio):
            yield index, sound
