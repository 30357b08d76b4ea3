"""Decoded frames as RGB, turned and mirrored as their file says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.media.video_track import VideoTrack

if TYPE_CHECKING:
    from av import VideoFrame

_ONE = 1 << 16
_SKEWED = "to be shown turned by other than quarters; frames are as stored"


def pyav_frames(
    track: VideoTrack, wanted: Iterable[int], notes: list[str]
) -> Iterator[NDArray[np.uint8]]:
    """The frames with these stored times, as `rgb_of`; wanted: increasing. A note may be added.

    Raises: as `VideoTrack.frames`.
    """
    for frame in track.frames(wanted):
        if _SKEWED not in notes and is_skewed(frame):
            notes.append(_SKEWED)
        yield rgb_of(frame)


def rgb_of(frame: VideoFrame) -> NDArray[np.uint8]:
    """A frame as it is to be seen: [height, width, 3] uint8."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    matrix = display_matrix(frame)
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if a == d == 0:
        pixels, x, y = pixels.transpose(1, 0, 2), c, b
    else:
        x, y = a, d
    return pixels[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """How a frame is turned and mirrored (ISO/IEC 14496-12, 6.2.2), None if it is not.

    a, b, c, d: a pixel at (x, y) is shown at (ax + cy, bx + dy), up to a shift; two of them are 0.
    A matrix that does anything else is left out (`is_skewed`).
    """
    matrix = _matrix(frame)
    return None if matrix in (None, (1, 0, 0, 1)) or is_skewed(frame) else matrix


def is_skewed(frame: VideoFrame) -> bool:
    """Whether the frame is to be shown turned by other than quarters."""
    matrix = _matrix(frame)
    if matrix is None:
        return False
    a, b, c, d = matrix
    return not ((b == c == 0 and a and d) or (a == d == 0 and b and c))


def _matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """The signs of the matrix; small values, which rounding leaves, count as 0."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return None
    values = np.frombuffer(memoryview(found), dtype=np.int32)  # type: ignore[arg-type]
    a, b, _, c, d = (round(value / _ONE) for value in values[:5].tolist())
    return a, b, c, d
