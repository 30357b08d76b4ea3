"""A video that is given as a list of pictures, with their rate.

The clock of such a video begins with its first frame: frame i is shown from i / rate seconds on,
and the last one as long as the others. It has no sound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import InvalidSample, MediaError, MediaTooLarge, SampleError
from omnitrace_core.media.fetching.fetch import read_media
from omnitrace_core.media.frames.sampling import count_frames, frames_between, spread_frames
from omnitrace_core.media.pictures.frame_notes import FrameNotes
from omnitrace_core.media.pictures.picture import read_picture
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.sizes import check_decoded, frame_size
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.runtime.node_faults import raise_if_node_fault

# Frames per second of a list without a rate: what Qwen's own code assumes.
DEFAULT_RATE = 2.0
# Times are told apart to a millisecond.
_MAX_RATE = 1000.0


@dataclass(frozen=True, slots=True)
class _Pick:
    """The frames that the model gets: their indices in the list, of which `n_different` differ."""

    indices: NDArray[np.int64]
    n_different: int


def decode_frame_list(part: Part, options: MediaOptions, rules: MediaRules) -> DecodedVideo:
    """Fetch a list of frames, and decode those that the model gets.

    These are all, unless they are more than the part or the run allows; then they are spread evenly
    over the list. An odd number is made even by the last frame once more. `sha256` is that of the
    SHA-256 digests (32 bytes each) of all listed files, in order.

    Raises:
        InvalidSample: options that contradict each other, or a frame without media.
        MediaTooLarge: longer than `media.max_video_s`; all files together above `media.max_bytes`;
            a frame above `media.max_image_pixels`; all above `media.max_decoded_mib`.
        MediaEmpty: no frame in [video_start, video_end].
        MediaError: fetching or decoding a frame failed, or frames differ in size; the message names
            the frame by its index.
    """
    name, requested = media_name(part), part.options
    notes = FrameNotes(options)
    if requested.fps is None:
        notes.add(f"no fps given with the list of frames; {DEFAULT_RATE:g} per second assumed")
    rate = requested.fps or DEFAULT_RATE
    if rate > _MAX_RATE:
        raise InvalidSample(f"{name}: fps={rate:g}; at most {_MAX_RATE:g} frames per second")
    n_listed = len(part.frames)
    if n_listed / rate > options.max_video_s:
        raise MediaTooLarge(
            f"{name}: {n_listed / rate:,.1f} s at {rate:g} frames per second, above "
            f"media.max_video_s={options.max_video_s:,.1f}; raise the limit in the config or give "
            "fewer frames"
        )
    times_s = np.arange(n_listed) / rate
    first, last = frames_between(times_s, requested.video_start, requested.video_end, name)
    pick = _pick(first, last, part, options, rules, notes)
    film = _Film(part, pick.indices, options, rules)
    sha256 = film.read(notes)
    return DecodedVideo(
        frames=film.frames,
        frame_times_s=times_s[pick.indices],
        fps=pick.n_different / (last - first + 1) * rate,
        width=film.shape[0],
        height=film.shape[1],
        start_s=first / rate,
        end_s=(last + 1) / rate,
        duration_s=n_listed / rate,
        sound=None,
        sha256=sha256,
        notes=notes.texts(),
    )


def _pick(
    first: int,
    last: int,
    part: Part,
    options: MediaOptions,
    rules: MediaRules,
    notes: FrameNotes,
) -> _Pick:
    """The frames of the list, from `first` to `last`, that the model gets."""
    factor, n_range, requested = rules.frame_factor, last - first + 1, part.options
    if requested.nframes is None:
        most = min(requested.max_frames or rules.max_frames, options.max_frames)
        n = min(n_range, max(most // factor * factor, factor))
    else:
        # Of a list, fps is no wish for a number of frames.
        wanted = replace(requested, fps=None)
        n = count_frames(n_range, 1.0, wanted, options, rules, media_name(part))
        if requested.nframes >= n_range:
            n = n_range
        if requested.nframes > n_range:
            notes.add(f"{requested.nframes} frames asked for, the list has {n_range}")
    if n < n_range:
        notes.add(f"{n} of the {n_range} listed frames sampled")
        return _Pick(spread_frames(first, last, n), n)
    indices = np.arange(first, last + 1)
    n_missing = -n_range % factor
    if n_missing:
        notes.add(f"{n_range} frames; the last one repeated to {n_range + n_missing}")
    return _Pick(np.append(indices, [last] * n_missing).astype(np.int64), n_range)


class _Film:
    """The picked frames of a list, scaled to one size.

    frames: [n_picks, height, width, 3] uint8. shape: width and height of the pictures themselves.
    """

    def __init__(
        self, part: Part, picks: NDArray[np.int64], options: MediaOptions, rules: MediaRules
    ) -> None:
        self._part = part
        self._picks = picks
        self._options = options
        self._rules = rules
        self.frames = np.empty((0, 0, 0, 3), np.uint8)
        self.shape = (0, 0)

    def read(self, notes: FrameNotes) -> str:
        """Fetch all files, and decode those that are picked. Returns the SHA-256 of the list."""
        digest, n_bytes = hashlib.sha256(), 0
        picked = set(self._picks.tolist())
        for index, frame in enumerate(self._part.frames):
            with _naming_frame(index):
                still = Part("image", uri=frame.uri, data=frame.data)
                content = read_media(still, self._options)
                n_bytes += len(content)
                self._check_bytes(n_bytes)
                digest.update(hashlib.sha256(content).digest())
                if index in picked:
                    picture = read_picture(content, self._size, self._options, media_name(still))
                    self.frames[self._picks == index] = picture.pixels
                    notes.add_of_frame(index, picture.notes)
            report_progress()
        return digest.hexdigest()

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """The size to scale a frame to, by its own; the first one decides for all."""
        if self.shape == (0, 0):
            name, requested = media_name(self._part), self._part.options
            n = len(self._picks)
            size = frame_size(width, height, n, requested, self._options, self._rules, name)
            check_decoded(n * size[0] * size[1] * 3, requested, self._options, name)
            self.frames = np.empty((n, size[1], size[0], 3), np.uint8)
            self.shape = (width, height)
        if (width, height) != self.shape:
            raise MediaError(
                f"{width}x{height} pixels, but the first frame that is used has "
                f"{self.shape[0]}x{self.shape[1]}; give all frames of a video one size"
            )
        return self.frames.shape[2], self.frames.shape[1]

    def _check_bytes(self, n_bytes: int) -> None:
        if n_bytes > self._options.max_bytes:
            raise MediaTooLarge(
                f"with it the list takes {n_bytes:,} bytes, above media.max_bytes="
                f"{self._options.max_bytes:,}; raise the limit in the config or give fewer frames"
            )


@contextmanager
def _naming_frame(index: int) -> Iterator[None]:
    try:
        yield
    except SampleError as error:
        raise_if_node_fault(error)
        raise type(error)(f"frame {index}: {error.message}") from error
