"""Videos that are animated pictures: GIF, WebP, PNG and AVIF files.

Pillow draws each frame over those before it, as the file says. The clock begins with the first
frame; each is shown as long as the file says, and the whole once, however often it asks for a loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import MediaCorrupt, MediaTooLarge
from omnitrace_core.media.containers.sniff import ANIMATIONS, HEAD_BYTES, sniff
from omnitrace_core.media.fetching.fetch import sha256_of
from omnitrace_core.media.frames.sampling import (
    count_frames,
    count_notes,
    frames_between,
    pick_frames,
)
from omnitrace_core.media.frames.timeline import Timeline, is_steady_rate
from omnitrace_core.media.pictures.frame_notes import FrameNotes
from omnitrace_core.media.pictures.joined import file_behind
from omnitrace_core.media.pictures.picture import (
    check_image_pixels,
    pillow_formats,
    reading,
    to_rgb,
)
from omnitrace_core.media.pictures.picture_work import CountedFile
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.sizes import check_decoded, frame_size
from omnitrace_core.media.sound.track import check_track_number
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

# How long browsers show a frame that has no duration.
_NO_DURATION_S = 0.1
# All frames are drawn to know their times, and once more for their pixels: 17 billion pixels are
# 8,000 frames of 1920x1080.
_MAX_FRAMES, _MAX_PIXELS = 50_000, 1 << 34
# Small frames take some reads each, and GIF files two for each 256 bytes.
_BASE_READS, _BYTES_PER_READ = 2_000_000, 16
# Blocks in which the end is looked for; Pillow has read them before.
_MAX_BLOCKS = 20_000_000


def is_animation(path: Path) -> bool:
    """Whether a file has the format of pictures that may be animated."""
    with path.open("rb") as file:
        return sniff(file.read(HEAD_BYTES)) in ANIMATIONS


def decode_animation(
    path: Path, part: Part, options: MediaOptions, rules: MediaRules
) -> DecodedVideo:
    """Sample the frames of an animated picture by the model's rule.

    Raises:
        InvalidSample: options that contradict each other.
        MediaTooLarge: longer than `media.max_video_s`, above `media.max_image_pixels` or
            `media.max_decoded_mib`, more than `media.max_frames` asked for, or more frames or
            pixels in all than are read of an animation.
        MediaEmpty: no frame in [video_start, video_end].
        MediaCorrupt: damaged, truncated, not animated, or followed by another file.
        MediaError: the aspect ratio is not accepted.
    """
    name, notes = media_name(part), FrameNotes(options)
    check_track_number(part.options.audio_track, 0, name)
    content = path.read_bytes()
    file = CountedFile(_with_alpha(content), name)
    file.end_header()
    file.allow_reads(_BASE_READS + len(content) // _BYTES_PER_READ)
    with reading(name) as warnings, Image.open(file, formats=pillow_formats()) as image:
        check_image_pixels(image, options, name)
        timeline = _read_timeline(image, options, name, notes)
        if image.format == "GIF" and content[file.tell() - 1 : file.tell()] != b";":
            raise MediaCorrupt(f"{name}: truncated: it has no end mark; copy it from its source")
        _check_alone(content, name)
        video = _sample(image, timeline, part, options, rules, notes)
    return replace(video, sha256=sha256_of(content), notes=(*notes.texts(), *warnings))


def _check_alone(content: bytes, name: str) -> None:
    """Check that no other file follows, as when files are joined: Pillow reads the first alone."""
    if found := file_behind(content, _MAX_BLOCKS):
        raise MediaCorrupt(
            f"{name}: another file ({found[0].name}) begins in it at byte {found[1]:,} of "
            f"{len(content):,}, as when files are joined; give each its own part, or make them one"
        )


def _sample(
    image: Image.Image,
    timeline: Timeline,
    part: Part,
    options: MediaOptions,
    rules: MediaRules,
    notes: FrameNotes,
) -> DecodedVideo:
    name, requested = media_name(part), part.options
    first, last = frames_between(
        timeline.starts_s, requested.video_start, requested.video_end, name
    )
    start_s, end_s = float(timeline.starts_s[first]), float(timeline.ends_s[last])
    n_range, length_s = last - first + 1, end_s - start_s
    n = count_frames(n_range, n_range / length_s, requested, options, rules, name)
    picks, times_s = pick_frames(timeline, first, last, n)
    for note in count_notes(n, n_range, requested, rules):
        notes.add(note)
    image.seek(0)
    width, height = image.size
    size = frame_size(width, height, n, requested, options, rules, name)
    check_decoded(n * size[0] * size[1] * 3, requested, options, name)
    return DecodedVideo(
        frames=_draw(image, timeline.pts[picks], size, notes),
        frame_times_s=times_s,
        fps=n / length_s,
        width=width,
        height=height,
        start_s=start_s,
        end_s=end_s,
        duration_s=timeline.end_s,
        sound=None,
        sha256="",
    )


def _with_alpha(content: bytes) -> bytes:
    """A WebP file whose header says that it has transparency, as its frames may have anyhow.

    If it does not say so, Pillow drops the transparency of frames, and what they hide is black.
    """
    if content[8:16] != b"WEBPVP8X" or len(content) <= 20:
        return content
    return content[:20] + bytes((content[20] | 0x10,)) + content[21:]


def _read_timeline(
    image: Image.Image, options: MediaOptions, name: str, notes: FrameNotes
) -> Timeline:
    """The times of all frames, each of which is decoded for it: so damage is an error.

    `pts` are Pillow's numbers of the frames. Leaves the file where its frames end.
    """
    # A PNG file may begin with a picture for readers that know no animation.
    first = int(bool(image.info.get("default_image")))
    times = list(_times(image, name))[first:]
    durations = [duration for _, duration in times]
    if image.format == "AVIF":  # each is rounded to 1 ms, so their sum would be off
        durations[:-1] = [later - begin for (begin, _), (later, _) in pairwise(times)]
    if len(durations) < 2:
        raise MediaCorrupt(f"{name}: a picture that is not animated; make its part an image")
    n_without = durations.count(0.0)
    if n_without:
        notes.add(f"{n_without} frames without a duration; shown for {_NO_DURATION_S:g} s each")
    lengths = np.array([duration or _NO_DURATION_S for duration in durations])
    ends = np.cumsum(lengths)
    if ends[-1] > options.max_video_s:
        raise MediaTooLarge(
            f"{name}: {ends[-1]:,.1f} s, above media.max_video_s={options.max_video_s:,.1f}; "
            "raise the limit in the config or cut the animation"
        )
    starts = np.append(0.0, ends[:-1])
    return Timeline(np.arange(first, first + len(ends)), starts, ends, is_steady_rate(starts))


def _times(image: Image.Image, name: str) -> Iterator[tuple[float, float]]:
    """When each frame begins and how long it is shown, in seconds; 0 if the file does not tell."""
    n_told = None if image.format == "GIF" else getattr(image, "n_frames", 1)
    size = image.size
    _check_work(n_told or 1, size, name)
    index = 0
    while n_told is None or index < n_told:
        try:
            image.seek(index)
        except EOFError:
            if n_told is not None:
                raise
            return
        image.load()
        _check_work(index + 1, size, name)
        if image.size != size:
            raise MediaCorrupt(f"{name}: frame {index} is larger than the picture; save it again")
        begin, duration = (image.info.get(key) or 0 for key in ("timestamp", "duration"))
        yield float(begin) / 1000, float(duration) / 1000
        report_progress()
        index += 1


def _check_work(n_frames: int, size: tuple[int, int], name: str) -> None:
    n_pixels = n_frames * size[0] * size[1]
    if n_frames > _MAX_FRAMES or n_pixels > _MAX_PIXELS:
        raise MediaTooLarge(
            f"{name}: {n_frames:,} frames or more of {size[0]}x{size[1]} pixels; animations of up "
            f"to {_MAX_FRAMES:,} frames and {_MAX_PIXELS:,} pixels in all are read; make it a "
            "video file"
        )


def _draw(
    image: Image.Image,
    numbers: NDArray[np.int64],
    size: tuple[int, int],
    notes: FrameNotes,
) -> NDArray[np.uint8]:
    """The frames of these numbers at `size` (width, height): [n, height, width, 3] uint8."""
    frames = np.empty((len(numbers), size[1], size[0], 3), np.uint8)
    for number in range(int(numbers[-1]) + 1):
        image.seek(number)
        image.load()
        report_progress()
        places = np.flatnonzero(numbers == number)
        if len(places):
            found: list[str] = []
            rgb = to_rgb(image, found)
            notes.add_of_frame(number, found)
            frames[places] = np.asarray(rgb.resize(size, Image.Resampling.BICUBIC))
    return frames
