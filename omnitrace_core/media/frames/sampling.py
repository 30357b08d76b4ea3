"""Select the frames of a video that the model gets, by the rule of qwen-omni-utils.

Symbols: N frames in the chosen range, n of them sampled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.errors import InvalidSample, MediaEmpty, MediaTooLarge
from omnitrace_core.media.frames.timeline import Timeline
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import PartOptions

# Times are rounded to a container's unit, 1 ms in Matroska and FLV.
_SLACK_S = 1e-3
_SLACK_FRAMES = 0.02


def frames_between(
    times_s: NDArray[np.float64], start: float | None, end: float | None, name: str
) -> tuple[int, int]:
    """Index of the first and the last frame that begins in [start, end], in seconds.

    None for start or end: the start or end of the video. times_s: [n_frames] float64, increasing
    presentation times.

    Raises:
        InvalidSample: start is negative or not before end, whatever the video.
        MediaEmpty: no frame begins in the interval.
    """
    low = times_s[0] if start is None else start
    high = times_s[-1] if end is None else end
    if (start is not None and start < 0) or (end is not None and not (start or 0.0) < end):
        raise InvalidSample(
            f"{name}: video_start={start}, video_end={end} is not a valid interval of a video that "
            f"begins at {times_s[0]:.3f} s; start must be before end"
        )
    first = int(np.searchsorted(times_s, low - _SLACK_S))
    last = int(np.searchsorted(times_s, high + _SLACK_S, side="right")) - 1
    if first > last:
        raise MediaEmpty(
            f"{name}: no frame between {low:.3f} and {high:.3f} s; its frames begin at "
            f"{times_s[0]:.3f} to {times_s[-1]:.3f} s"
        )
    return first, last


def find_stretch(
    timeline: Timeline, start: float | None, end: float | None, name: str
) -> tuple[int, int, float]:
    """The first and last frame of [start, end], and when the first is shown in it, in seconds.

    At a constant rate those that begin in it, as in qwen-omni-utils. Otherwise, and where none
    begins in it, also the frame that is shown at its start: a picture may stand still for long.

    Raises: as `frames_between`, if no frame is shown in the interval.
    """
    starts = timeline.starts_s
    shown = -1
    if start is not None and 0 <= start < timeline.end_s:
        shown = int(np.searchsorted(starts, start + _SLACK_S, side="right")) - 1
    try:
        first, last = frames_between(starts, start, end, name)
    except MediaEmpty:
        if shown < 0:
            raise
        first = last = shown
    if shown >= 0 and not timeline.is_steady:
        first = min(first, shown)
    return first, last, max(float(starts[first]), start or float(starts[first]))


def count_frames(
    n_frames: int,
    video_fps: float,
    part: PartOptions,
    options: MediaOptions,
    rules: MediaRules,
    name: str,
) -> int:
    """How many of `n_frames` frames are sampled: a multiple of the model's frame factor.

    That is `nframes` of the part, or its length times `fps` limited to min_frames and max_frames;
    never more frames than there are, but at least one frame factor. video_fps: the video's own
    frames per second.

    Raises:
        InvalidSample: both nframes and fps, or one that is not positive.
        MediaTooLarge: nframes is above `media.max_frames`.
    """
    factor = rules.frame_factor
    if part.nframes is not None and part.fps is not None:
        raise InvalidSample(f"{name}: both nframes={part.nframes} and fps={part.fps}; give one")
    if part.nframes is not None:
        _check_positive(part.nframes, "nframes", name)
        wanted: float = round(part.nframes / factor) * factor
        if wanted > options.max_frames:
            raise MediaTooLarge(
                f"{name}: nframes={part.nframes}, above media.max_frames={options.max_frames}; "
                "request fewer frames or raise the limit in the config"
            )
    else:
        fps = options.video_fps if part.fps is None else part.fps
        _check_positive(fps, "fps", name)
        least = math.ceil((part.min_frames or rules.min_frames) / factor) * factor
        most = min(part.max_frames or rules.max_frames, options.max_frames) // factor * factor
        wanted = min(max(n_frames / video_fps * fps, least), most)
    # Lengths are known to a container's unit: half a step more or less must not take two frames.
    return max(int(min(wanted + _SLACK_FRAMES, n_frames)) // factor * factor, factor)


def count_notes(n: int, n_range: int, part: PartOptions, rules: MediaRules) -> Iterator[str]:
    """Notes if `n` sampled frames of `n_range` are not the number that was asked for."""
    requested, factor = part.nframes, rules.frame_factor
    if requested is not None and n < requested // factor * factor:
        yield f"{requested} frames asked for, the video has {n_range}; {n} sampled"
    if n > n_range:
        yield f"only {n_range} frame; repeated to {n}"
    elif n_range - factor < n < n_range:
        yield f"{n} of its {n_range} frames sampled: the model takes them by {factor}"


def spread_frames(first: int, last: int, n: int) -> NDArray[np.int64]:
    """`n` frame indices, evenly spaced from `first` to `last` inclusive: [n] int64."""
    return np.linspace(first, last, n).round().astype(np.int64)


def pick_frames(
    timeline: Timeline, first: int, last: int, n: int, begin_s: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `n` sampled frames, from `first` to `last` inclusive, and their times.

    Both [n], int64 and float64. At a constant rate they are evenly spaced frames, as in
    qwen-omni-utils. Otherwise they are those that are shown at evenly spaced times, because the
    model is told a constant rate: a picture that stands still is sampled again, and has the time of
    that sample. All others have the time at which they begin, or `begin_s` if that is later.
    """
    starts = timeline.starts_s
    begin_s = float(starts[first]) if begin_s is None else begin_s
    if timeline.is_steady or first == last:
        picks = spread_frames(first, last, n)
        return picks, np.maximum(starts[picks], begin_s)
    times_s = np.linspace(begin_s, max(starts[last], begin_s), n)
    picks = np.searchsorted(starts, times_s + _SLACK_S, side="right") - 1
    picks = picks.clip(first, last)
    is_new = np.append(True, picks[1:] != picks[:-1])
    return picks, np.where(is_new, np.maximum(starts[picks], begin_s), times_s)


def _check_positive(value: float, option: str, name: str) -> None:
    if not value > 0:
        raise InvalidSample(f"{name}: {option}={value}; give a positive number")
