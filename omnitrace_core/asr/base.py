"""What a speech engine is."""

from __future__ import annotations

from typing import Protocol

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
