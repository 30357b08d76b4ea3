"""Windows for models that take a fixed length of sound: neighbouring stretches of speech share one.

A window contains the pauses between its stretches as they sound, so the times of its words stay
true. Pauses decide later where chunks end, and Whisper's words extend into them; so each word is
assigned to a stretch by its times, and limited to it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from omnitrace_core.asr.engines.sound import (
    MODEL_RATE,
    Interval,
    SoundClip,
    cut_clips,
    model_waveform,
)
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.records import Word

# A long stretch is cut in the middle of the quietest interval of this length: longer than the
# closed lips of a "p", and at most as long as a pause between words.
_QUIET_S = 0.2
# The steps in which that interval is looked for.
_STEP_S = 0.01
# A word further from all speech was invented: Whisper's times, and the detector's, are off by less.
_TOLERANCE_S = 1.0
# With so much of a word before a pause, that is where it is spoken.
_WELL_INSIDE_S = 0.5
# With less of a word behind a pause, that is the error of its end.
_BARELY_S = 0.06
# How far beside detected speech a word may lie.
_MARGIN_S = 0.5
# The words of a shorter stretch may have got the times of a neighbour.
_CERTAIN_S = 1.0
# Robust Speech Recognition via Large-Scale Weak Supervision (arXiv 2212.04356), section 4.5.
_HIGHEST_RATIO = 2.4


def cut_windows(
    audio: DecodedAudio, speech: Sequence[Interval], longest_s: float
) -> list[SoundClip]:
    """Clips of at most `longest_s` seconds that hold all speech, as few as follow each other.

    audio: at 16 kHz. speech: intervals in order of time, in seconds of the original file.
    """
    clips: list[SoundClip] = []
    for stretches in plan_windows(audio, speech, longest_s):
        window = (stretches[0][0], stretches[-1][1])
        clips += [replace(clip, speech=stretches) for clip in cut_clips(audio, [window])]
    return clips


def plan_windows(
    audio: DecodedAudio, speech: Sequence[Interval], longest_s: float
) -> list[tuple[Interval, ...]]:
    """The stretches of speech of each window; those that fit into none are cut."""
    windows: list[list[Interval]] = []
    for interval in speech:
        for start_s, end_s in split_stretch(audio, interval, longest_s):
            if windows and end_s - windows[-1][0][0] <= longest_s:
                windows[-1].append((start_s, end_s))
            else:
                windows.append([(start_s, end_s)])
    return [tuple(window) for window in windows]


def split_stretch(audio: DecodedAudio, interval: Interval, longest_s: float) -> list[Interval]:
    """An interval in pieces of at most `longest_s` seconds, and at least a quarter of that.

    audio: at 16 kHz.
    """
    start_s, end_s = interval
    pieces: list[Interval] = []
    while end_s - start_s > longest_s:
        low_s = start_s + longest_s / 2
        cut_s = _quietest_s(audio, low_s, min(start_s + longest_s, end_s - longest_s / 4))
        pieces.append((start_s, cut_s))
        start_s = cut_s
    return [*pieces, (start_s, end_s)]


def _quietest_s(audio: DecodedAudio, low_s: float, high_s: float) -> float:
    """The middle of the quietest interval of 0.2 s between two times, in seconds of the file."""
    step, n_steps = round(_STEP_S * MODEL_RATE), round(_QUIET_S / _STEP_S)
    first, last = (round((at_s - audio.start_s) * MODEL_RATE) for at_s in (low_s, high_s))
    samples = model_waveform(audio)[first:last].astype(np.float64)
    steps = samples[: len(samples) // step * step].reshape(-1, step)
    sums = np.convolve(np.square(steps).sum(axis=1), np.ones(n_steps), mode="valid")
    return low_s + (int(sums.argmin()) + n_steps / 2) * _STEP_S


def place_words(words: Sequence[Word], speech: Sequence[Interval]) -> list[list[Word]]:
    """The words of each stretch of speech, limited to it.

    words: in order of time. speech: intervals in order of time, in the same seconds. A word goes to
    no stretch before that of the word before it. A word that overlaps none may lie up to 0.5 s
    beside the nearest, whose start or end the detector may have missed; words further away than 1 s
    are left out.
    """
    placed: list[list[Word]] = [[] for _ in speech]
    first = 0
    for index, word in enumerate(words):
        if index + 1 < len(words):
            # The last word before Whisper goes on at a time may last until the end of the window.
            last_s = max(word.start_s, words[index + 1].start_s)
            word = replace(word, end_s=min(word.end_s, last_s))
        first += _stretch_of(word, speech[first:])
        overlap_s = _overlap_s(word, speech[first])
        if overlap_s < -_TOLERANCE_S:
            continue
        margin_s = 0.0 if overlap_s > 0 else _MARGIN_S
        low_s, high_s = speech[first][0] - margin_s, speech[first][1] + margin_s
        start_s, end_s = (min(max(at_s, low_s), high_s) for at_s in (word.start_s, word.end_s))
        placed[first].append(replace(word, start_s=start_s, end_s=end_s))
    return placed


def _stretch_of(word: Word, speech: Sequence[Interval]) -> int:
    """The stretch that a word overlaps most, or else the nearest; across a pause, by its ends.

    A word before a pause often lasts until the next one starts, where the next stretch does. A word
    after a pause often starts too early, where the word before the pause ends, and ends in time.
    """
    overlaps_s = [_overlap_s(word, interval) for interval in speech]
    for index, (start_s, end_s) in enumerate(speech[:-1]):
        if start_s <= word.start_s < end_s:
            later = overlaps_s[index] < _WELL_INSIDE_S and overlaps_s[index + 1] >= _BARELY_S
            return index + (later and word.end_s <= speech[index + 1][1])
    return max(range(len(speech)), key=overlaps_s.__getitem__)


def list_doubtful(placed: Sequence[Sequence[Word]], speech: Sequence[Interval]) -> list[int]:
    """The stretches of a window to transcribe once more, each by itself.

    placed: the words of each stretch. Whisper may leave out what follows a pause, and may repeat a
    phrase without end: so these are long stretches without words, or all if the words repeat.
    """
    if len(speech) < 2:
        return []
    if repeats_itself(word.text for words in placed for word in words):
        return list(range(len(speech)))
    return [
        index
        for index, (start_s, end_s) in enumerate(speech)
        if not placed[index] and end_s - start_s >= _CERTAIN_S
    ]


def repeats_itself(texts: Iterable[str]) -> bool:
    """Whether a transcript can be compressed more than speech can (Whisper's own criterion)."""
    content = " ".join(text.strip() for text in texts).encode()
    return len(content) > _HIGHEST_RATIO * len(zlib.compress(content))


def _overlap_s(word: Word, interval: Interval) -> float:
    """Seconds that a word shares with an interval; below 0, the distance between them."""
    return min(word.end_s, interval[1]) - max(word.start_s, interval[0])
