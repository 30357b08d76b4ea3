"""Videos: sampled frames with their true times, and the sound track on the same clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import MediaEmpty, MediaTooLarge
from omnitrace_core.media.animation import decode_animation, is_animation
from omnitrace_core.media.containers.sniff import (
    AVI,
    HEAD_BYTES,
    check_complete,
    check_kind,
)
from omnitrace_core.media.fetching.fetch import media_path, sha256_of
from omnitrace_core.media.frames.decord_reader import decord_frames
from omnitrace_core.media.frames.pixels import pyav_frames
from omnitrace_core.media.frames.sampling import (
    count_frames,
    count_notes,
    find_stretch,
    pick_frames,
)
from omnitrace_core.media.frames.video_track import Doubt, VideoTrack, read_video_track
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.sizes import check_decoded, frame_size
from omnitrace_core.media.video_sound import add_sound, too_long
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part


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
        MediaCorrupt: not a video that is read, truncated or damaged.
        MediaError: fetching failed (see `read_media`), or the aspect ratio is not accepted.
    """
    name = media_name(part)
    with media_path(part, options) as path, path.open("rb") as file:
        if is_animation(path):
            return decode_animation(path, part, options, rules)
        kind = check_kind(file.read(HEAD_BYTES), "video", name)
        notes = check_complete(file, kind, name)
        assert kind is not None
        track = read_video_track(file, kind, name)
        video = _sample_surely(path, track, part, options, rules)
        video = replace(video, sha256=sha256_of(path), notes=notes + track.notes + video.notes)
        if not (want_sound and options.video_sound):
            return video
        return add_sound(file, kind, video, part, options, rules)


def _sample_surely(
    path: Path, track: VideoTrack, part: Part, options: MediaOptions, rules: MediaRules
) -> DecodedVideo:
    """Sample the frames by seeking; if that leaves any doubt, by decoding all in turn."""
    if track.kind is not AVI:  # whose frames have to be counted first
        with suppress(Doubt):
            return _sample(path, track, part, options, rules)
        with suppress(Doubt):
            return _sample(path, track.in_turn(), part, options, rules)
    found = track.by_decoding()
    video = _sample(path, found, part, options, rules)
    return replace(video, notes=(*video.notes, *found.lost_notes(track)))


def _sample(
    path: Path, track: VideoTrack, part: Part, options: MediaOptions, rules: MediaRules
) -> DecodedVideo:
    """Sample the frames. Raises: Doubt: the track gives other frames than it told."""
    name, requested, timeline = track.name, part.options, track.timeline
    if not len(timeline.pts):
        raise MediaEmpty(f"{name}: its edit list shows no frame")
    # A fragment of a stream begins late on the stream's clock.
    shown_s = timeline.end_s - max(float(timeline.starts_s[0]), 0.0)
    if shown_s > options.max_video_s:
        raise too_long(shown_s, options=options, what=f"{name}:")
    _check_pixels(*track.size, options, name)
    first, last, begin_s = find_stretch(timeline, requested.video_start, requested.video_end, name)
    n_range = last - first + 1
    length_s = float(timeline.ends_s[last]) - begin_s
    n = count_frames(n_range, n_range / length_s, requested, options, rules, name)
    picks, times_s = pick_frames(timeline, first, last, n, begin_s)
    notes = list(count_notes(n, n_range, requested, rules))
    if track.kind is not AVI:  # which says so where a frame is to stay for longer
        notes += timeline.gap_notes()
    wide, high = track.pixel_aspect
    if wide != high:
        notes.append(f"pixels are {wide}:{high}, not square; frames and boxes are as stored")
    pts, places = np.unique(timeline.pts[picks], return_inverse=True)
    scaler = _Scaler(n, part, options, rules, notes)
    for at, pixels in enumerate(_read_frames(path, track, pts.tolist(), options, notes)):
        scaler.put(np.flatnonzero(places == at), pixels)
        report_progress()
    return DecodedVideo(
        frames=scaler.frames,
        frame_times_s=times_s,
        fps=n / length_s,
        width=scaler.width,
        height=scaler.height,
        start_s=begin_s,
        end_s=float(timeline.ends_s[last]),
        duration_s=timeline.end_s,
        sound=None,
        sha256="",
        notes=tuple(notes),
    )


def _read_frames(
    path: Path, track: VideoTrack, pts: list[int], options: MediaOptions, notes: list[str]
) -> Iterator[NDArray[np.uint8]]:
    """The frames with these stored times, by the reader that the options name."""
    if options.video_reader == "decord":
        return decord_frames(path, track, pts)
    return pyav_frames(track, pts, notes)


class _Scaler:
    """Scales frames to the size at which the model gets them, which the first one decides.

    frames: [n, height, width, 3] uint8. width, height: of the first frame as it is shown.
    """

    def __init__(
        self, n: int, part: Part, options: MediaOptions, rules: MediaRules, notes: list[str]
    ) -> None:
        self._n, self._part, self._options, self._rules = n, part, options, rules
        self._notes = notes
        self.frames: NDArray[np.uint8] = np.empty((0, 0, 0, 3), dtype=np.uint8)
        self.width = self.height = 0

    def put(self, places: NDArray[np.int64], pixels: NDArray[np.uint8]) -> None:
        """Put a frame at its places. Raises: MediaTooLarge; MediaError: its aspect ratio."""
        height, width, _ = pixels.shape
        if not self.width:
            self._begin(width, height)
        elif (width, height) != (self.width, self.height):
            _check_pixels(width, height, self._options, media_name(self._part))
            note = f"frames of {self.width}x{self.height} and others, scaled to one size"
            self._notes += [note] * (note not in self._notes)
        size = (self.frames.shape[2], self.frames.shape[1])
        scaled = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        self.frames[places] = np.asarray(scaled)

    def _begin(self, width: int, height: int) -> None:
        name, requested = media_name(self._part), self._part.options
        size = frame_size(width, height, self._n, requested, self._options, self._rules, name)
        check_decoded(self._n * size[0] * size[1] * 3, requested, self._options, name)
        self.width, self.height = width, height
        self.frames = np.empty((self._n, size[1], size[0], 3), dtype=np.uint8)


def _check_pixels(width: int, height: int, options: MediaOptions, name: str) -> None:
    if width * height > options.max_image_pixels:
        raise MediaTooLarge(
            f"{name}: frames of {width}x{height} = {width * height:,} pixels, above "
            f"media.max_image_pixels={options.max_image_pixels:,}; downscale the video"
        )
