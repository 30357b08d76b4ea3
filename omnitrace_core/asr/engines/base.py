"""What a speech engine is, and how the sounds of several samples are heard together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from omnitrace_core.addresses import media_name
from omnitrace_core.errors import FatalError, SpeechError
from omnitrace_core.records import DecodedAudio, Part, SpeechSegment

# What an engine makes of a sound: stretches of speech, or why there are none to be had.
Heard = tuple[SpeechSegment, ...] | SpeechError


@dataclass(frozen=True, slots=True)
class Sound:
    """A decoded sound, and the audio or video part that it was decoded from."""

    audio: DecodedAudio
    part: Part


class SpeechEngine(Protocol):
    """Finds stretches of speech in one sound."""

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """Stretches of speech in order of time, on the clock of the original file.

        part: the audio or video part that `audio` was decoded from. No speech gives no segments.

        Raises:
            SpeechError: this sound cannot be segmented.
        """
        ...


@runtime_checkable
class BatchEngine(Protocol):
    """A speech engine that hears several sounds at once better than one after the other."""

    def segments_of(self, sounds: Sequence[Sound]) -> list[Heard]:
        """For each sound what `segments` gives, or the error that it raises, in its place.

        A sound's result depends on no other sound, and so does its error.
        """
        ...


@runtime_checkable
class LoadableEngine(Protocol):
    """A speech engine whose weights load with its first sound, or before it."""

    def load(self) -> None:
        """Load them now. Raises: BackendError: a model cannot be loaded."""
        ...


def hear(engine: SpeechEngine, sounds: Sequence[Sound]) -> list[Heard]:
    """What an engine makes of each sound: together if it can, else one by one.

    Raises:
        BackendError: a model cannot be loaded.
    """
    if isinstance(engine, BatchEngine):
        return engine.segments_of(sounds)
    return [_alone(engine, sound) for sound in sounds]


def _alone(engine: SpeechEngine, sound: Sound) -> Heard:
    try:
        return engine.segments(sound.audio, sound.part)
    except SpeechError as error:
        return error


def only(heard: Sequence[Heard]) -> tuple[SpeechSegment, ...]:
    """The segments of the one sound that was heard. Raises: SpeechError."""
    (result,) = heard
    if isinstance(result, SpeechError):
        raise result
    return result


def as_speech_error(engine: str, part: Part, error: Exception) -> SpeechError:
    """What a library raised on one sound as that sample's error.

    Raises:
        FatalError: the device is broken: no other sound would fare better.
    """
    check_device(engine, error)
    failed = SpeechError(f"{media_name(part)}: {engine} failed: {error!r}")
    failed.__cause__ = error
    return failed


def check_device(engine: str, error: Exception) -> None:
    """Raises: FatalError if an error says that the device is broken."""
    if "CUDA error" in str(error) and "out of memory" not in str(error):
        raise FatalError(f"{engine}: the device is broken ({error})") from error
