"""Decoded frames as RGB, turned and mirrored as their file says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.media.frames.video_track import VideoTrack

if TYPE_CHECKING:
    from av import VideoFrame

_ONE = 1 << 16
_ROUNDING = 0.01
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
    turned = None if matrix is None else _quarters(matrix)
    if turned is None:
        return pixels
    a, b, c, d = turned
    if a == d == 0:
        pixels, x, y = pixels.transpose(1, 0, 2), c, b
    else:
        x, y = a, d
    return pixels[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]


def is_skewed(frame: VideoFrame) -> bool:
    """Whether the frame is to be shown turned by other than quarters."""
    matrix = display_matrix(frame)
    return matrix is not None and _quarters(matrix) is None


def display_matrix(frame: VideoFrame) -> tuple[float, ...] | None:
    """How a frame is turned and mirrored (ISO/IEC 14496-12, 6.2.2); None if the file does not say.

    a, b, c, d: a pixel at (x, y) is shown at (ax + cy, bx + dy), up to a shift.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return None
    values = np.frombuffer(memoryview(found), dtype=np.int32)  # type: ignore[arg-type]
    return tuple(float(values[at]) / _ONE for at in (0, 1, 3, 4))


def _quarters(matrix: tuple[float, ...]) -> tuple[int, int, int, int] | None:
    """The matrix in whole numbers; None if it does more than to turn by quarters and to mirror."""
    a, b, c, d = (round(value) for value in matrix)
    whole = (a, b, c, d)
    near = all(abs(value - to) <= _ROUNDING for value, to in zip(matrix, whole, strict=True))
    turns = (b == c == 0 and abs(a) == abs(d) == 1) or (a == d == 0 and abs(b) == abs(c) == 1)
    return whole if near and turns else None
