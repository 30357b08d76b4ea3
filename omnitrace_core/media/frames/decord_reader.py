"""Frames of a video by decord: a second reader, independent of PyAV, to check the first one with.

decord gives other frames than it is asked for where it seeks, so it reads in turn. It tells little
of a file, so times, edit lists and damage are still PyAV's; what they disagree on is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.media.frames.pixels import rgb_of
from omnitrace_core.media.frames.video_track import VideoTrack
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.progress.media_times import importing

if TYPE_CHECKING:
    from decord import VideoReader

# decord's times are float32, with an error of a quarter of a millisecond after one hour.
_SLACK_S = 2e-3
# Mean difference of the values of a frame, of 255.
_MOST_DIFFERENT = 8
# decord's messages open with the time of day and a source line, and may close with a stack.
_PREFIX = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |\[/[^\]]*\]")


def decord_frames(
    path: Path, track: VideoTrack, wanted: Iterable[int]
) -> Iterator[NDArray[np.uint8]]:
    """The frames with these stored times, as RGB [height, width, 3] uint8, turned as the file says.

    wanted: increasing, among the frames that are shown.

    Raises: MediaCorrupt: decord cannot read the file, or its frames have other times.
    """
    with _errors(track.name):
        reader = _open(path)
        pts = _shown(reader, track)
        at, last = 0, None
        checked = False
        for time in wanted:
            while last is None or pts[at - 1] < time:
                last = reader.next().asnumpy()
                at += 1
                report_progress()
            if not checked:
                _check_same(last, rgb_of(next(track.frames([time]))), track.name)
                checked = True
            yield last


def _open(path: Path) -> VideoReader:
    with importing():
        import decord

    # FFmpeg would write its own account of broken files to stderr; our errors carry the cause.
    decord.logging.set_level(decord.logging.QUIET)
    # The tolerance is a share of the frames; 0 would mean no limit, and a frame that decord made
    # up must be an error.
    return decord.VideoReader(str(path), num_threads=1, fault_tol="0.000001")


def _shown(reader: VideoReader, track: VideoTrack) -> list[int]:
    """Stored times of the frames that decord gives one after another: not of hidden ones.

    Raises: MediaCorrupt: they are not those of the track.
    """
    starts = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0].astype(np.float64)
    stored = np.array(track.all_pts, dtype=np.int64)
    times = stored * float(track.unit)
    hidden = times + np.diff(times, append=np.inf) <= (track.window.begin_s or 0.0) + _SLACK_S
    if track.window.begin_s is None:
        hidden[:] = False
    same = len(starts) == len(times)
    if not same or (np.abs(starts - starts[0] - (times - times[0])) > _SLACK_S).any():
        raise MediaCorrupt(
            f"{track.name}: decord finds {len(starts):,} frames, PyAV {len(times):,}, or other "
            "times of them; use media.video_reader=pyav"
        )
    return [int(pts) for pts in stored[~hidden]]


def _check_same(theirs: NDArray[np.uint8], ours: NDArray[np.uint8], name: str) -> None:
    """Compare a frame: decord mirrors no frames, and turns some wrongly."""
    if theirs.shape == ours.shape:
        difference = np.abs(theirs.astype(np.int16) - ours).mean()
        if difference < _MOST_DIFFERENT:
            return
    raise MediaCorrupt(
        f"{name}: decord shows a frame otherwise than PyAV; use media.video_reader=pyav"
    )


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Errors of decord as ours."""
    import decord

    try:
        yield
    except (
        AssertionError,
        decord.DECORDError,
        decord.DECORDLimitReachedError,
        IndexError,
        RuntimeError,
        StopIteration,
    ) as error:
        cause = _PREFIX.sub("", str(error).split("\n", 1)[0]).strip()
        raise MediaCorrupt(
            f"{name}: decord cannot decode the video ({cause[:120] or type(error).__name__}); use "
            "media.video_reader=pyav"
        ) from error
