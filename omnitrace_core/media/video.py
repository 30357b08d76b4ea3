"""Videos: sampled frames with their true times, and the sound track on the same clock.

decord counts a file's frame times from its first frame. Here they are put back on the file's own
clock, which the sound track is on, so that both agree when one of them begins late.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import MediaCorrupt, MediaEmpty, MediaTooLarge
from omnitrace_core.media.containers.sniff import (
    HEAD_BYTES,
    check_complete,
    check_kind,
    pixel_notes,
    sound_end_s,
    video_start_s,
)
from omnitrace_core.media.fetching.fetch import media_path, sha256_of
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.progress.media_times import importing
from omnitrace_core.media.sampling import TIME_SLACK_S, count_frames, frames_between, spread_frames
from omnitrace_core.media.sizes import check_decoded, frame_size
from omnitrace_core.media.track import read_track, too_long
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

if TYPE_CHECKING:
    from decord import VideoReader

# Full-size frames taken from one decord reader: while a frame is scaled down it decodes ahead, and
# it keeps the memory of every frame it ever had in flight (gigabytes at 4K) until it is closed.
_READER_BYTES = 512 << 20
# Before this no file begins: decord gives frames without a time one of billions of years ago.
_NO_TIME_S = 1e6
# Sound is declared to its last block, which may be half silence.
_LAST_BLOCK_S = 0.5
# decord's messages open with the time of day and a source line, and may close with a stack.
_DECORD_PREFIX = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |\[/[^\]]*\]")


@dataclass(frozen=True, slots=True)
class _Timeline:
    """Every frame that is shown, on the file's clock: starts_s, ends_s [n_frames], average rate.

    n_hidden: frames before them that are decoded and not shown, as clips have them that were cut
    between keyframes without encoding them again.
    """

    starts_s: NDArray[np.float64]
    ends_s: NDArray[np.float64]
    fps: float
    n_hidden: int


def decode_video(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool = True
) -> DecodedVideo:
    """Fetch a video part, sample its frames by the model's rule, and read its sound track.

    want_sound: False leaves the sound out, as `media.video_sound: false` does for the whole run.

    Raises:
        InvalidSample: options that contradict each other.
        MediaTooLarge: longer than `media.max_video_s`, more frames than `media.max_frames` asked
            for, frames above `media.max_image_pixels`, or all above `media.max_decoded_mib`.
        MediaEmpty: no video track, no frames, or none in [video_start, video_end].
        MediaCorrupt: not a video that decord reads, truncated or damaged.
        MediaError: fetching failed (see `read_media`), or the aspect ratio is not accepted.
    """
    name = media_name(part)
    with media_path(part, options) as path:
        begin_s, sound_s, notes = _check_file(path, options, name)
        video = _decode_frames(path, begin_s, part, options, rules)
        video = replace(video, notes=notes + video.notes)
        if not (want_sound and options.video_sound):
            return video
        return read_track(path, video, sound_s, part, options, rules)


def _check_file(
    path: Path, options: MediaOptions, name: str
) -> tuple[float, float | None, tuple[str, ...]]:
    """Settle the kind of file, and that all of it is there, before FFmpeg sees it.

    Returns the time of its first frame, that of its sound's end if it tells, and notes.
    """
    with path.open("rb") as file:
        kind = check_kind(file.read(HEAD_BYTES), "video", name)
        notes = check_complete(file, kind, name) + pixel_notes(file, kind)
        begin_s = video_start_s(file, kind, name)
        sound_s, is_exact = sound_end_s(file, kind)
    if begin_s is None:
        raise MediaEmpty(f"{name}: no video track; is it an audio file?")
    if sound_s > options.max_video_s + _LAST_BLOCK_S:
        raise too_long(sound_s, options, f"{name}: its sound track lasts")
    return begin_s, sound_s if is_exact else None, notes


def _decode_frames(
    path: Path, begin_s: float, part: Part, options: MediaOptions, rules: MediaRules
) -> DecodedVideo:
    name = media_name(part)
    requested = part.options
    with decord_errors(name):
        reader = _open_video(path, name)
        timeline = _read_timeline(reader, begin_s, name)
    duration_s = float(timeline.ends_s.max())
    if duration_s > options.max_video_s:
        raise too_long(duration_s, options, f"{name}:")
    first, last = frames_between(
        timeline.starts_s, requested.video_start, requested.video_end, name
    )
    n_range = last - first + 1
    n = count_frames(n_range, timeline.fps, requested, options, rules, name)
    picks = spread_frames(first, last, n)
    notes: list[str] = []
    factor = rules.frame_factor
    if requested.nframes is not None and n < requested.nframes // factor * factor:
        notes.append(f"{requested.nframes} frames asked for, the video has {n_range}; {n} sampled")
    if n > n_range:
        notes.append(f"only {n_range} frame; repeated to {n}")
    with decord_errors(name):
        width, height = _frame_shape(reader, options, name)
        size = frame_size(width, height, n, requested, options, rules, name)
        check_decoded(n * size[0] * size[1] * 3, requested, options, name)
        del reader
        scaled = _frames_in_turn if timeline.n_hidden else _scaled_frames
        frames = scaled(path, picks, size, width * height * 3, name)
    return DecodedVideo(
        frames=frames,
        frame_times_s=timeline.starts_s[picks],
        fps=n / n_range * timeline.fps,
        width=width,
        height=height,
        start_s=float(timeline.starts_s[first]),
        end_s=float(timeline.ends_s[last]),
        duration_s=duration_s,
        sound=None,
        sha256=sha256_of(path),
        notes=tuple(notes),
    )


def _open_video(path: Path, name: str) -> VideoReader:
    with importing():
        import decord

    # FFmpeg would write its own account of broken files to stderr; our errors carry the cause.
    decord.logging.set_level(decord.logging.QUIET)
    try:
        # One thread: the pipeline runs one decoder per core. The tolerance is a share of the
        # frames; 0 would mean no limit, and a frame that decord made up must be an error.
        reader = decord.VideoReader(str(path), num_threads=1, fault_tol="0.000001")
    except AssertionError as error:
        raise MediaEmpty(f"{name}: no video frames") from error
    report_progress()
    return reader


def _read_timeline(reader: VideoReader, begin_s: float, name: str) -> _Timeline:
    try:
        spans = reader.get_frame_timestamp(np.arange(len(reader))).astype(np.float64)
    except IndexError as error:
        # What the header counts and what decord indexed may differ.
        raise MediaEmpty(f"{name}: no video frames that can be shown") from error
    starts, ends = spans[:, 0], spans[:, 1]
    if starts[0] < -_NO_TIME_S or (np.diff(starts) <= 0).any():
        # AVI and MPEG need not carry times, and without them decord also picks wrong frames.
        raise MediaCorrupt(
            f"{name}: the file does not tell when its frames are shown; rewrite it as MP4"
        )
    fps = float(reader.get_avg_fps())
    if not (np.isfinite(fps) and fps > 0):
        fps = (len(starts) - 1) / float(starts[-1] - starts[0]) if starts[-1] > starts[0] else 1.0
    # Fragmented MP4 and FLV give packets no length: they last one average frame.
    ends = np.where(ends > starts, ends, starts + 1 / fps)
    n_hidden = int((ends <= TIME_SLACK_S).sum())
    if n_hidden == len(ends):
        raise MediaEmpty(f"{name}: its edit list shows no frame")
    starts, ends = _exact(starts, fps), _exact(ends, fps)
    # decord's own origin is the first frame that is not hidden.
    begin_s -= float(starts[0])
    return _Timeline(starts[n_hidden:] + begin_s, ends[n_hidden:] + begin_s, fps, n_hidden)


def _exact(times_s: NDArray[np.float64], fps: float) -> NDArray[np.float64]:
    """Times that came as float32, put back on the grid of a constant frame rate where they fit."""
    grid = np.round(times_s * fps) / fps
    return np.where(np.abs(times_s - grid) <= np.spacing(np.float32(times_s.max())), grid, times_s)


def _frame_shape(reader: VideoReader, options: MediaOptions, name: str) -> tuple[int, int]:
    """Width and height of the frames, rotation applied."""
    height, width, _ = reader[0].shape
    if width * height > options.max_image_pixels:
        raise MediaTooLarge(
            f"{name}: frames of {width}x{height} = {width * height:,} pixels, above "
            f"media.max_image_pixels={options.max_image_pixels:,}; downscale the video"
        )
    return width, height


def _scaled_frames(
    path: Path, picks: NDArray[np.int64], size: tuple[int, int], frame_bytes: int, name: str
) -> NDArray[np.uint8]:
    """The picked frames at `size` (width, height): [n, height, width, 3] uint8."""
    frames = np.empty((len(picks), size[1], size[0], 3), dtype=np.uint8)
    step = max(1, _READER_BYTES // frame_bytes)
    for at in range(0, len(picks), step):
        reader = _open_video(path, name)
        for k in range(at, min(at + step, len(picks))):
            frame = Image.fromarray(reader.get_batch([picks[k]]).asnumpy()[0])
            frames[k] = np.asarray(frame.resize(size, Image.Resampling.BICUBIC))
            report_progress()
    return frames


def _frames_in_turn(
    path: Path, picks: NDArray[np.int64], size: tuple[int, int], _: int, name: str
) -> NDArray[np.uint8]:
    """As `_scaled_frames`, for files with hidden frames.

    decord leaves these out of what it gives, but counts them when it seeks: so it must not seek.
    """
    frames = np.empty((len(picks), size[1], size[0], 3), dtype=np.uint8)
    reader, at = _open_video(path, name), 0
    for k, pick in enumerate(picks):
        if k and pick == picks[k - 1]:
            frames[k] = frames[k - 1]
            continue
        while at < pick:
            reader.next()
            report_progress()
            at += 1
        frame = Image.fromarray(reader.next().asnumpy())
        frames[k] = np.asarray(frame.resize(size, Image.Resampling.BICUBIC))
        report_progress()
        at += 1
    return frames


@contextmanager
def decord_errors(name: str) -> Iterator[None]:
    """Errors of decord as ours."""
    with importing():
        import decord

    try:
        yield
    except (
        decord.DECORDError,
        decord.DECORDLimitReachedError,
        RuntimeError,
        StopIteration,
    ) as error:
        cause = _DECORD_PREFIX.sub("", str(error).split("\n", 1)[0]).strip()
        if "cannot find video stream" in cause:
            cause = "no video track, or one of a codec that decord lacks, such as AV1"
        raise MediaCorrupt(
            f"{name}: the video cannot be decoded ({cause[:120] or type(error).__name__}); "
            "encode it again as H.264"
        ) from error
