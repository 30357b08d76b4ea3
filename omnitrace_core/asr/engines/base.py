"""The protocol of speech engines, and the errors of engines."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import FatalError, SpeechError
from omnitrace_core.records import Part, SpeechSegment

# The result of an engine for one sound.
SpeechResult = tuple[SpeechSegment, ...] | SpeechError


@dataclass(frozen=True, slots=True)
class PartAudio:
    """The decoded sound of one part.

    part: the audio or video part that `audio` was decoded from.
    """

    audio: DecodedAudio
    part: Part


def sound_key(sound: PartAudio) -> Hashable:
    """Equal for sounds in which an engine finds the same: of equal bytes, stretch, and part.

    What an engine may read of a part counts: its address (in messages), options and own segments.
    """
    audio = sound.audio
    if not audio.sha256:
        return object()  # nobody says of what file it is
    stretch = (audio.sha256, audio.start_s, audio.duration_s, audio.waveform.size)
    return *stretch, audio.sample_rate, replace(sound.part, data=None, evidence=True)


class SpeechEngine(Protocol):
    """Finds the speech segments of one sound."""

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """The speech segments in order of time, in seconds of the original file.

        part: the audio or video part that `audio` was decoded from. A sound without speech has no
        segments.

        Raises:
            SpeechError: the engine failed on this sound.
        """
        ...


@runtime_checkable
class BatchEngine(Protocol):
    """A speech engine that is faster on several sounds at once."""

    def segments_of(self, sounds: Sequence[PartAudio]) -> list[SpeechResult]:
        """For each sound what `segments` returns, or the SpeechError that it raises.

        The result of a sound must not depend on the other sounds.
        """
        ...


@runtime_checkable
class LoadableEngine(Protocol):
    """A speech engine that can load its weights before its first sound."""

    def load(self) -> None:
        """Load the weights now.

        Raises:
            BackendError: a model cannot be loaded.
        """
        ...


def find_segments(engine: SpeechEngine, sounds: Sequence[PartAudio]) -> list[SpeechResult]:
    """The result of an engine for each sound: in one batch if it is a BatchEngine.

    Raises:
        BackendError: a model cannot be loaded.
    """
    if isinstance(engine, BatchEngine):
        return engine.segments_of(sounds)
    return [_segments_or_error(engine, sound) for sound in sounds]


def _segments_or_error(engine: SpeechEngine, sound: PartAudio) -> SpeechResult:
    try:
        return engine.segments(sound.audio, sound.part)
    except SpeechError as error:
        return error


def only_result(results: Sequence[SpeechResult]) -> tuple[SpeechSegment, ...]:
    """The segments of the only sound. Raises: SpeechError, if that is its result."""
    (result,) = results
    if isinstance(result, SpeechError):
        raise result
    return result


def as_speech_error(engine: str, part: Part, error: Exception) -> SpeechError:
    """A library's exception about one sound, as the SpeechError of that sound.

    Raises:
        FatalError: the exception says that the device is broken, so that every sound would fail.
    """
    raise_if_device_broken(engine, error)
    failed = SpeechError(f"{media_name(part)}: {engine} failed: {error!r}")
    failed.__cause__ = error
    return failed


def raise_if_device_broken(engine: str, error: Exception) -> None:
    """Raises: FatalError, if an exception says that the device is broken."""
    if "CUDA error" in str(error) and "out of memory" not in str(error):
        raise FatalError(f"{engine}: the device is broken ({error})") from error
