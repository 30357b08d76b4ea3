"""Heat maps: how much each patch of an image, or of a video's frames, supports a span.

They are computed from a signal's rows over prompt positions (`Positions`), new or stored.

Symbols: P prompt positions, n_gen response tokens. A picture is an image or one temporal step of a
video's frames, and has n positions. A patch is a cell of the regular grid that a heat map has over
a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.attribution.curation import pos_weights, span_means
from omnitrace_core.errors import TraceError
from omnitrace_core.positions import PositionKind, PromptMap
from omnitrace_core.records import Float32, Segmentation

Float64 = NDArray[np.float64]
Indices = NDArray[np.int64]

# Boxes are float32. Edges that miss a grid line by less than this share of a patch lie on it.
_SNAP = 1e-3
# More positions per picture than any model has; a box that needs more patches is not in pixels.
_MAX_PATCHES = 1_000_000


@dataclass(frozen=True, slots=True)
class HeatMap:
    """One span's heat map over one image, or over one temporal step of a video's frames.

    values: [rows, columns] float32, the signal at each patch: its mean over the span's tokens,
    weighted by part of speech. values.sum() is the span's mass on the picture. Patch (r, c) covers
    [c*width/columns, r*height/rows, (c+1)*width/columns, (r+1)*height/rows] in pixels of the
    original. step: temporal step, 0 for images. start_s, end_s: the time of the step, None for
    images.
    """

    span_index: int
    part_index: int
    modality: Literal["image", "video"]
    step: int
    start_s: float | None
    end_s: float | None
    width: int
    height: int
    values: Float32


def span_heatmaps(
    rows: Float32, prompt: PromptMap, segmentation: Segmentation, *, pos_weighting: bool = True
) -> tuple[HeatMap, ...]:
    """The heat maps of every span over every picture of a sample, by span, part and step.

    rows: [n_gen, P], one signal's rows over the prompt. A span whose tokens all have weight 0
    (punctuation only) gets unweighted means.

    The patches of a picture are as large as its smallest position. The signal of a larger position
    (of an overview image, say, whose tiles are positions too) is distributed over the patches it
    covers, by area, so no mass is lost. Positions that form a regular grid are one patch each.

    Raises:
        TraceError: the rows, the prompt and the tags do not belong to one trace, or a position of a
            picture has an invalid box.
    """
    if rows.shape != (len(segmentation.pos), len(prompt.part)):
        raise TraceError(
            f"the rows are {list(rows.shape)} (tokens x positions), but there are "
            f"{len(segmentation.pos)} tagged tokens and {len(prompt.part)} prompt positions; take "
            "the rows, the tags and the prompt from the same trace"
        )
    weights = pos_weights(segmentation.pos, pos_weighting)
    spans = segmentation.spans
    by_span: list[list[HeatMap]] = [[] for _ in spans]
    for picture in _pictures(prompt):
        # Always in C order: the order of summation, and so the rounding, depends on the layout.
        of_picture = np.take(rows, picture.positions, axis=1)
        values = picture.grid.distribute(span_means(of_picture, weights, spans))
        for i, span in enumerate(spans):
            by_span[i].append(picture.heat_map(span.index, values[i]))
    return tuple(heat for heats in by_span for heat in heats)


def pack(values: Float32) -> tuple[NDArray[np.uint8], float]:
    """A heat map as one byte per patch: ([rows * columns] uint8, row by row, scale).

    `packed * scale` differs from the values by at most scale / 2. The largest value is packed as
    255.
    """
    scale = float(values.max(initial=0.0)) / 255.0
    if scale == 0.0:
        return np.zeros(values.size, dtype=np.uint8), 0.0
    levels = np.rint(values.ravel().astype(np.float64) / scale)
    return levels.astype(np.uint8), scale


def unpack(
    packed: NDArray[np.uint8] | bytes | memoryview, scale: float, n_rows: int, n_columns: int
) -> Float32:
    """The values of a packed heat map, [n_rows, n_columns] float32.

    Raises:
        TraceError: there are not n_rows x n_columns bytes.
    """
    levels = np.frombuffer(packed, dtype=np.uint8)
    if levels.size != n_rows * n_columns:
        raise TraceError(
            f"a packed heat map of {levels.size} bytes does not have {n_rows} x {n_columns} "
            "patches; take its rows and columns from the same record"
        )
    values = levels.astype(np.float64) * scale
    return values.astype(np.float32).reshape(n_rows, n_columns)


@dataclass(frozen=True, slots=True)
class _Grid:
    """The patches of a picture, and how its positions overlap them.

    shape: rows and columns. position, patch, share: one entry per position and patch that overlap:
    `share` of the signal at position `position` belongs to patch `patch`.
    """

    shape: tuple[int, int]
    position: Indices
    patch: Indices
    share: Float64

    def distribute(self, means: Float64) -> Float32:
        """Values at positions as values at patches.

        means: [n_spans, n]. Returns [n_spans, rows, columns] float32.
        """
        n_patches = self.shape[0] * self.shape[1]
        values = np.zeros((len(means), n_patches), dtype=np.float32)
        for i, of_span in enumerate(means):
            values[i] = np.bincount(self.patch, of_span[self.position] * self.share, n_patches)
        return values.reshape(-1, *self.shape)


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image or one temporal step of frames. positions: [n], their indices in the prompt."""

    part_index: int
    modality: Literal["image", "video"]
    step: int
    start_s: float | None
    end_s: float | None
    width: int
    height: int
    positions: NDArray[np.intp]
    grid: _Grid

    def heat_map(self, span_index: int, values: Float32) -> HeatMap:
        return HeatMap(
            span_index=span_index,
            part_index=self.part_index,
            modality=self.modality,
            step=self.step,
            start_s=self.start_s,
            end_s=self.end_s,
            width=self.width,
            height=self.height,
            values=values,
        )


def _pictures(prompt: PromptMap) -> Iterator[_Picture]:
    """The pictures of a prompt by part and step."""
    visible = np.isin(prompt.stream, (PositionKind.IMAGE, PositionKind.FRAMES))
    for part in np.unique(prompt.part[visible]).tolist():
        of_part = visible & (prompt.part == part)
        frames = np.flatnonzero(of_part & (prompt.stream == PositionKind.FRAMES))
        if frames.size == 0:
            positions = np.flatnonzero(of_part)
            size, grid = _grid(prompt.box[positions], part)
            yield _Picture(part, "image", 0, None, None, *size, positions, grid)
            continue
        times = np.stack([prompt.lo[frames], prompt.hi[frames]], axis=1)
        steps, step_of = np.unique(times, axis=0, return_inverse=True)
        for step, (start_s, end_s) in enumerate(steps.tolist()):
            positions = frames[step_of.ravel() == step]
            size, grid = _grid(prompt.box[positions], part)
            yield _Picture(part, "video", step, start_s, end_s, *size, positions, grid)


def _grid(box: Float32, part: int) -> tuple[tuple[int, int], _Grid]:
    """Width and height of a picture in pixels, and its patches.

    box: [n, 4], the boxes of all its positions. part: index of the part, for messages.
    """
    boxes = box.astype(np.float64)
    width, height = float(boxes[:, 2].max()), float(boxes[:, 3].max())
    rows, columns = shape = _shape(boxes, width, height, part)
    x_lo, x_hi = _in_patches(boxes[:, 0], width, columns), _in_patches(boxes[:, 2], width, columns)
    y_lo, y_hi = _in_patches(boxes[:, 1], height, rows), _in_patches(boxes[:, 3], height, rows)
    left, wide = _touched(x_lo, x_hi)
    top, high = _touched(y_lo, y_hi)
    counts = wide * high
    position = np.repeat(np.arange(len(boxes)), counts)
    nth = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
    row = top[position] + nth // wide[position]
    column = left[position] + nth % wide[position]
    share_x = _share(x_lo[position], x_hi[position], column)
    share = share_x * _share(y_lo[position], y_hi[position], row)
    size = max(1, round(width)), max(1, round(height))
    return size, _Grid(shape, position, row * columns + column, share)


def _shape(boxes: Float64, width: float, height: float, part: int) -> tuple[int, int]:
    """Rows and columns of patches as large as the smallest box. Raises: TraceError."""
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    valid = (wide > 0) & (high > 0) & (boxes.min(axis=1) >= 0) & np.isfinite(boxes).all(axis=1)
    if not valid.all():
        raise TraceError(
            f"part {part}: a position of its picture has the box {boxes[~valid][0].tolist()}, "
            "which is not a valid box; the backend must return [x0, y0, x1, y1] in pixels of the "
            "original"
        )
    rows, columns = round(height / high.min()), round(width / wide.min())
    if rows * columns > _MAX_PATCHES:
        raise TraceError(
            f"part {part}: its smallest position needs {rows} x {columns} patches on {width:g} x "
            f"{height:g} pixels; the backend must return boxes in pixels of the original"
        )
    return rows, columns


def _in_patches(edges: Float64, length: float, n_patches: int) -> Float64:
    """Convert edges from pixels to patches; an edge close to a grid line is moved onto it.

    length, n_patches: of the picture, along this axis.
    """
    scaled = edges * (n_patches / length)
    lines = np.rint(scaled)
    return np.where(np.abs(scaled - lines) < _SNAP, lines, scaled)


def _touched(lo: Float64, hi: Float64) -> tuple[Indices, Indices]:
    """The first patch of each interval, and how many patches it touches."""
    first = np.floor(lo).astype(np.int64)
    return first, np.ceil(hi).astype(np.int64) - first


def _share(lo: Float64, hi: Float64, patch: Indices) -> Float64:
    """The share of each interval [lo, hi) that lies in its patch [patch, patch + 1)."""
    shares: Float64 = (np.minimum(hi, patch + 1) - np.maximum(lo, patch)) / (hi - lo)
    return shares
