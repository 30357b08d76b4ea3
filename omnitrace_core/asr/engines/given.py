"""The engine `given`: checks and returns the segments that the sample itself gives."""

from __future__ import annotations

from dataclasses import replace

from omnitrace_core.addresses import media_name
from omnitrace_core.asr.engines.words import copy_punctuation, join_texts
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import SpeechError
from omnitrace_core.records import Part, SpeechSegment

# Times of transcripts are often rounded to tenths of a second, or refer to the padded file.
_TOLERANCE_S = 0.1


class GivenSegments:
    """Returns a part's own segments, cut to the decoded stretch of the file as their words say."""

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        """The part's segments that overlap the decoded sound.

        A segment that goes on outside it is cut, and so is its text if it has words. A text without
        words cannot be cut: the times of its segment stay, which says that it is not all heard.

        Raises:
            SpeechError: the part has no segments, or they are empty, out of order, overlapping or
                outside the file, or have words that are out of order or outside their segment.
        """
        if part.segments is None:
            raise SpeechError(
                f"{media_name(part)}: asr.engine=given needs segments in the "
                "sample's part; add them or choose another engine, such as vad"
            )
        _check(part.segments, audio.duration_s, media_name(part))
        low_s = audio.start_s
        high_s = min(low_s + len(audio.waveform) / audio.sample_rate, audio.duration_s)
        overlapping = [s for s in part.segments if s.start_s < high_s and s.end_s > low_s]
        heard = (_heard(segment, low_s, high_s) for segment in overlapping)
        return tuple(segment for segment in heard if segment is not None)


def _check(segments: tuple[SpeechSegment, ...], duration_s: float, name: str) -> None:
    previous_end_s = 0.0
    for index, segment in enumerate(segments):
        where = f"{name}: segment {index} [{segment.start_s}, {segment.end_s}] s"
        # `not <` in place of `>=`: a NaN fails, too.
        if not segment.start_s < segment.end_s:
            raise SpeechError(f"{where} does not end after it starts")
        if not segment.start_s >= previous_end_s:
            raise SpeechError(
                f"{where} starts before {previous_end_s} s; give segments in order, without overlap"
            )
        if not segment.end_s <= duration_s + _TOLERANCE_S:
            raise SpeechError(f"{where} ends after the media does ({duration_s:.3f} s)")
        _check_words(segment, where)
        previous_end_s = segment.end_s


def _check_words(segment: SpeechSegment, where: str) -> None:
    """Check that words are in order within their segment; transcribers let words overlap."""
    earliest_s = segment.start_s - _TOLERANCE_S
    for index, word in enumerate(segment.words):
        which = f"{where}: word {index} {word.text!r} [{word.start_s}, {word.end_s}] s"
        if not word.start_s <= word.end_s:
            raise SpeechError(f"{which} ends before it starts")
        if not word.start_s >= earliest_s:
            raise SpeechError(
                f"{which} starts before its segment or the word before it; give words in order, "
                "each within its segment"
            )
        if not word.end_s <= segment.end_s + _TOLERANCE_S:
            raise SpeechError(f"{which} ends after its segment does")
        earliest_s = word.start_s


def _heard(segment: SpeechSegment, low_s: float, high_s: float) -> SpeechSegment | None:
    """What is heard of a segment; None if none of its words is."""
    beyond_s = max(low_s - segment.start_s, segment.end_s - high_s)
    is_cut = beyond_s > _TOLERANCE_S
    if is_cut and segment.text and not segment.words:
        return segment
    start_s, end_s = max(segment.start_s, low_s), min(segment.end_s, high_s)
    inside = [w.start_s < high_s and w.end_s > low_s for w in segment.words]
    words = tuple(word for word, kept in zip(segment.words, inside, strict=True) if kept)
    text = segment.text
    if is_cut and text:
        if not words:
            return None
        spoken = _punctuated(segment)
        text = join_texts(word for word, kept in zip(spoken, inside, strict=True) if kept)
    return replace(segment, start_s=start_s, end_s=end_s, text=text, words=words)


def _punctuated(segment: SpeechSegment) -> list[str]:
    """The words as the text of the segment spells them, or as they are if it has other words."""
    words = [word.text.strip() for word in segment.words]
    return copy_punctuation(words, segment.text.strip()) or words
