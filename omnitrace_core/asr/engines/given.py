"""The engine `given`: segments that the sample brings along, checked."""

from __future__ import annotations

from dataclasses import replace

from omnitrace_core.addresses import media_name
from omnitrace_core.errors import SpeechError
from omnitrace_core.records import DecodedAudio, Part, SpeechSegment

# Transcripts are often rounded to tenths of a second or written for the padded file.
_END_SLACK_S = 0.1


class GivenSegments:
    """Returns a part's own segments, clipped to the decoded stretch of the file."""

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """The part's segments that overlap the decoded sound.

        Raises:
            SpeechError: no segments were given, or they are empty, out of order, overlapping or
                outside the file, or have words that are out of order or outside their segment.
        """
        if part.segments is None:
            raise SpeechError(
                f"{media_name(part)}: asr.engine=given needs segments in the "
                "sample's part; add them or choose another engine, such as vad"
            )
        _check(part.segments, audio.duration_s, media_name(part))
        low = audio.start_s
        high = min(low + len(audio.waveform) / audio.sample_rate, audio.duration_s)
        inside = [s for s in part.segments if s.start_s < high and s.end_s > low]
        return tuple(_clip(segment, low, high) for segment in inside)


def _check(segments: tuple[SpeechSegment, ...], duration_s: float, name: str) -> None:
    before = 0.0
    for index, segment in enumerate(segments):
        where = f"{name}: segment {index} [{segment.start_s}, {segment.end_s}] s"
        # Written so that a NaN fails, too.
        if not segment.start_s < segment.end_s:
            raise SpeechError(f"{where} does not end after it starts")
        if not segment.start_s >= before:
            raise SpeechError(
                f"{where} starts before {before} s; give segments in order, without overlap"
            )
        if not segment.end_s <= duration_s + _END_SLACK_S:
            raise SpeechError(f"{where} ends after the media does ({duration_s:.3f} s)")
        _check_words(segment, where)
        before = segment.end_s


def _check_words(segment: SpeechSegment, where: str) -> None:
    """Words may overlap, as transcribers let them, but stand in order within their segment."""
    before = segment.start_s - _END_SLACK_S
    for index, word in enumerate(segment.words):
        said = f"{where}: word {index} {word.text!r} [{word.start_s}, {word.end_s}] s"
        if not word.start_s <= word.end_s:
            raise SpeechError(f"{said} ends before it starts")
        if not word.start_s >= before:
            raise SpeechError(
                f"{said} starts before its segment or the word before it; give words in order, "
                "each within its segment"
            )
        if not word.end_s <= segment.end_s + _END_SLACK_S:
            raise SpeechError(f"{said} ends after its segment does")
        before = word.start_s


def _clip(segment: SpeechSegment, low: float, high: float) -> SpeechSegment:
    words = tuple(w for w in segment.words if w.start_s < high and w.end_s > low)
    start_s, end_s = max(segment.start_s, low), min(segment.end_s, high)
    return replace(segment, start_s=start_s, end_s=end_s, words=words)
