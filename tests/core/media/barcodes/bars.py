"""Frames that carry their number as a bar code, and reading it back.

A frame is a grid of cells. Red, green and blue corners tell how it is turned; ten cells are the
bits of the number and ten their opposites, so that a mixture of two frames is no number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELL, COLUMNS, ROWS, BITS = 16, 6, 4, 10
WIDTH, HEIGHT = COLUMNS * CELL, ROWS * CELL
_DARK, _LIGHT = 30, 225
_CORNERS = {
    (0, 0): (220, 20, 20),
    (0, COLUMNS - 1): (20, 200, 20),
    (ROWS - 1, 0): (20, 20, 230),
    (ROWS - 1, COLUMNS - 1): (225, 225, 225),
}
_INNER = [(row, c) for row in range(ROWS) for c in range(COLUMNS) if (row, c) not in _CORNERS]

# (a, b, c, d) of the display matrix of ISO/IEC 14496-12, 8.3.2: what is stored at column x and row
# y is shown at column a x + c y and row b x + d y, moved to where the picture begins.
Matrix = tuple[int, int, int, int]
UPRIGHT: Matrix = (1, 0, 0, 1)
MATRICES: dict[str, Matrix] = {
    "upright": UPRIGHT,
    "right": (0, 1, -1, 0),
    "upside-down": (-1, 0, 0, -1),
    "left": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a frame says: its number, None if it cannot be read, and how it is turned."""

    number: int | None
    matrix: Matrix | None


def draw(number: int) -> NDArray[np.uint8]:
    """The frame of a number below 1024: [HEIGHT, WIDTH, 3] uint8."""
    cells = np.zeros((ROWS, COLUMNS, 3), dtype=np.uint8)
    for place, colour in _CORNERS.items():
        cells[place] = colour
    bits = [number >> k & 1 for k in range(BITS)]
    for place, bit in zip(_INNER, bits + [1 - bit for bit in bits], strict=True):
        cells[place] = _LIGHT if bit else _DARK
    return cells.repeat(CELL, axis=0).repeat(CELL, axis=1)


def read(frame: NDArray[np.uint8]) -> Seen:
    """Read a frame of any size, turned and mirrored in any way: [height, width, 3] uint8."""
    for matrix in MATRICES.values():
        a, b, c, d = matrix
        # These matrices are orthogonal: the opposite of one is its transpose.
        cells = _cells(turned(frame, (a, c, b, d)))
        if _has_corners(cells):
            return Seen(_number(cells), matrix)
    return Seen(None, None)


def turned(picture: NDArray[np.uint8], matrix: Matrix) -> NDArray[np.uint8]:
    """A picture as the display matrix shows it."""
    a, b, c, d = matrix
    rows, columns = np.indices(picture.shape[:2])
    to_column, to_row = a * columns + c * rows, b * columns + d * rows
    to_column, to_row = to_column - to_column.min(), to_row - to_row.min()
    shown = np.empty((to_row.max() + 1, to_column.max() + 1, 3), dtype=picture.dtype)
    shown[to_row, to_column] = picture
    return shown


def _cells(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean colour of the middle of each cell: [ROWS, COLUMNS, 3]."""
    height, width = frame.shape[0] / ROWS, frame.shape[1] / COLUMNS
    cells = np.empty((ROWS, COLUMNS, 3))
    for row in range(ROWS):
        for column in range(COLUMNS):
            top, left = (row + 0.3) * height, (column + 0.3) * width
            middle = frame[
                int(top) : int(top + 0.4 * height) + 1, int(left) : int(left + 0.4 * width) + 1
            ]
            cells[row, column] = middle.mean(axis=(0, 1))
    return cells


def _has_corners(cells: NDArray[np.float64]) -> bool:
    """Whether the corners have their colours: the largest part by far, or all parts alike."""
    for place, colour in _CORNERS.items():
        parts = cells[place]
        if min(colour) == max(colour):
            if parts.min() < 150:
                return False
        elif parts[int(np.argmax(colour))] < np.sort(parts)[-2] + 60:
            return False
    return True


def _number(cells: NDArray[np.float64]) -> int | None:
    levels = np.array([cells[place].mean() for place in _INNER])
    if (np.abs(levels - 128) < 40).any():
        return None
    bits = levels > 128
    if (bits[:BITS] == bits[BITS:]).any():
        return None
    return int(sum(1 << k for k in range(BITS) if bits[k]))
