"""What a speech engine is."""

from __future__ import annotations

from typing import Protocol

from omnitrace_core.errors import FatalError, SpeechError
from omnitrace_core.media.fetch import media_name
from omnitrace_core.records import DecodedAudio, Part, Segment


class SpeechEngine(Protocol):
    """Finds stretches of speech in one sound."""

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[Segment, ...]:
        """Stretches of speech in order of time, on the clock of the original file.

        part: the audio or video part that `audio` was decoded from. No speech gives no segments.

        Raises:
            SpeechError: this sound cannot be segmented.
        """
        ...


def as_speech_error(engine: str, part: Part, error: Exception) -> SpeechError:
    """What a library raised on one sound as that sample's error.

    Raises:
        FatalError: the device is broken: no other sound would fare better.
    """
    if "CUDA error" in str(error) and "out of memory" not in str(error):
        raise FatalError(f"{engine}: the device is broken ({error})") from error
    return SpeechError(f"{media_name(part)}: {engine} failed: {error!r}")
