"""Heat maps: how much each place of an image, or of a video's frames, supports a span.

They are drawn from a signal's rows over prompt positions (`Positions`); stored ones do as well.

Symbols: P prompt positions, n_gen response tokens, n positions of one picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.attribution.curation import pos_weights, span_means
from omnitrace_core.errors import TraceError
from omnitrace_core.positions import PromptMap, Stream
from omnitrace_core.records import Float32, Segmentation

Float64 = NDArray[np.float64]
Index = NDArray[np.int64]

# Part of a cell by which float32 boxes may miss a grid line they are meant to lie on.
_SNAP = 1e-3
# More patches than any model has positions: boxes that ask for them are not in pixels.
_MAX_CELLS = 1_000_000


@dataclass(frozen=True, slots=True)
class HeatMap:
    """One span's weight over one image, or over one temporal step of a video's frames.

    values: [rows, columns] float32, the POS-weighted mean of the signal over the span's tokens at
    each patch, so values.sum() is the span's mass on that picture; patch (r, c) covers
    [c*width/columns, r*height/rows, (c+1)*width/columns, (r+1)*height/rows] in pixels of the
    original. step: temporal step, 0 for images; start_s, end_s: its time, None for images.
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
    """The maps of every span over every picture of a sample, by span, part and step.

    rows: [n_gen, P], one signal's rows over the prompt. A span whose tokens all weigh nothing
    (punctuation alone) gets plain means.

    The patches of a picture are as large as its smallest position. What a larger position got (one
    of an overview laid over finer tiles, say) is spread over the patches it covers, by area, so
    nothing is lost; positions that tile a regular grid are one patch each, unchanged.

    Raises:
        TraceError: the rows, prompt and tags are not those of one trace, or the positions of a
            picture have boxes that are no areas of it.
    """
    if rows.shape != (len(segmentation.pos), len(prompt.part)):
        raise TraceError(
            f"the rows are {list(rows.shape)} (tokens x positions), but there are "
            f"{len(segmentation.pos)} tagged tokens and {len(prompt.part)} prompt positions; take "
            "the rows, the tags and the prompt of one and the same trace"
        )
    weights = pos_weights(segmentation.pos, pos_weighting)
    spans = segmentation.spans
    drawn: list[list[HeatMap]] = [[] for _ in spans]
    for picture in _pictures(prompt):
        # In C order, whatever the rows' layout: the order of summation depends on it.
        seen = np.take(rows, picture.where, axis=1)
        values = picture.canvas.paint(span_means(seen, weights, spans))
        for i, span in enumerate(spans):
            drawn[i].append(picture.heat_map(span.index, values[i]))
    return tuple(heat for of_span in drawn for heat in of_span)


def pack(values: Float32) -> tuple[NDArray[np.uint8], float]:
    """A map in one byte per patch: ([rows * columns] uint8, row by row, scale).

    `packed * scale` is at most half a scale away from the values, whose maximum is 255 scales.
    """
    scale = float(values.max(initial=0.0)) / 255.0
    if scale == 0.0:
        return np.zeros(values.size, dtype=np.uint8), 0.0
    levels = np.rint(values.ravel().astype(np.float64) / scale)
    return levels.astype(np.uint8), scale


def unpack(
    packed: NDArray[np.uint8] | bytes | memoryview, scale: float, n_rows: int, n_columns: int
) -> Float32:
    """The values of a packed map, [n_rows, n_columns] float32.

    Raises:
        TraceError: there are not n_rows x n_columns bytes.
    """
    levels = np.frombuffer(packed, dtype=np.uint8)
    if levels.size != n_rows * n_columns:
        raise TraceError(
            f"a packed map of {levels.size} bytes is not {n_rows} x {n_columns} patches; take its "
            "rows and columns from the same record"
        )
    values = levels.astype(np.float64) * scale
    return values.astype(np.float32).reshape(n_rows, n_columns)


def upscale(heat: HeatMap, height: int, width: int) -> Float32:
    """The map at the size of a picture: [height, width] float32, each pixel its patch's value."""
    n_rows, n_columns = heat.values.shape
    rows = (np.arange(height) * 2 + 1) * n_rows // (2 * height)
    columns = (np.arange(width) * 2 + 1) * n_columns // (2 * width)
    scaled: Float32 = heat.values[rows[:, None], columns]
    return scaled


@dataclass(frozen=True, slots=True)
class _Canvas:
    """A picture's patches, and how its positions fill them.

    owner, cell, share: one entry per position and patch that overlap: `share` of what position
    `owner` got belongs to patch `cell`.
    """

    shape: tuple[int, int]
    owner: Index
    cell: Index
    share: Float64

    def paint(self, means: Float64) -> Float32:
        """means: [n_spans, n]. Returns [n_spans, rows, columns] float32."""
        n_cells = self.shape[0] * self.shape[1]
        painted = np.zeros((len(means), n_cells), dtype=np.float32)
        for i, of_span in enumerate(means):
            painted[i] = np.bincount(self.cell, of_span[self.owner] * self.share, n_cells)
        return painted.reshape(-1, *self.shape)


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image or one temporal step of frames: `where` its positions lie in the prompt, [n]."""

    part_index: int
    modality: Literal["image", "video"]
    step: int
    start_s: float | None
    end_s: float | None
    width: int
    height: int
    where: NDArray[np.intp]
    canvas: _Canvas

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
    visible = np.isin(prompt.stream, (Stream.IMAGE, Stream.FRAMES))
    for part in np.unique(prompt.part[visible]).tolist():
        of_part = visible & (prompt.part == part)
        frames = np.flatnonzero(of_part & (prompt.stream == Stream.FRAMES))
        if frames.size == 0:
            where = np.flatnonzero(of_part)
            size, canvas = _canvas(prompt.box[where], part)
            yield _Picture(part, "image", 0, None, None, *size, where, canvas)
            continue
        times = np.stack([prompt.lo[frames], prompt.hi[frames]], axis=1)
        steps, step_of = np.unique(times, axis=0, return_inverse=True)
        for step, (start_s, end_s) in enumerate(steps.tolist()):
            where = frames[step_of.ravel() == step]
            size, canvas = _canvas(prompt.box[where], part)
            yield _Picture(part, "video", step, start_s, end_s, *size, where, canvas)


def _canvas(box: Float32, part: int) -> tuple[tuple[int, int], _Canvas]:
    """Width and height of a picture in pixels, and its patches.

    box: [n, 4], of all its positions.
    """
    boxes = box.astype(np.float64)
    width, height = float(boxes[:, 2].max()), float(boxes[:, 3].max())
    rows, columns = shape = _shape(boxes, width, height, part)
    x_lo, x_hi = _on_grid(boxes[:, 0], width, columns), _on_grid(boxes[:, 2], width, columns)
    y_lo, y_hi = _on_grid(boxes[:, 1], height, rows), _on_grid(boxes[:, 3], height, rows)
    left, wide = _touched(x_lo, x_hi)
    top, high = _touched(y_lo, y_hi)
    counts = wide * high
    owner = np.repeat(np.arange(len(boxes)), counts)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = top[owner] + nth // wide[owner], left[owner] + nth % wide[owner]
    share = _share(x_lo[owner], x_hi[owner], column) * _share(y_lo[owner], y_hi[owner], row)
    size = max(1, round(width)), max(1, round(height))
    return size, _Canvas(shape, owner, row * columns + column, share)


def _shape(boxes: Float64, width: float, height: float, part: int) -> tuple[int, int]:
    """Rows and columns of patches as large as the smallest box. Raises: TraceError."""
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    real = (wide > 0) & (high > 0) & (boxes.min(axis=1) >= 0) & np.isfinite(boxes).all(axis=1)
    if not real.all():
        raise TraceError(
            f"part {part}: a position of its picture has the box {boxes[~real][0].tolist()}, which "
            "is no area; its backend has to give [x0, y0, x1, y1] in pixels of the original"
        )
    rows, columns = round(height / high.min()), round(width / wide.min())
    if rows * columns > _MAX_CELLS:
        raise TraceError(
            f"part {part}: its smallest position asks for {rows} x {columns} patches on {width:g} "
            f"x {height:g} pixels; its backend has to give boxes in pixels of the original"
        )
    return rows, columns


def _on_grid(edges: Float64, length: float, n_cells: int) -> Float64:
    """Edges in pixels as edges in cells; those close to a grid line lie on it."""
    cells = edges * (n_cells / length)
    lines = np.rint(cells)
    return np.where(np.abs(cells - lines) < _SNAP, lines, cells)


def _touched(lo: Float64, hi: Float64) -> tuple[Index, Index]:
    """The first cell of each interval, and how many it touches."""
    first = np.floor(lo).astype(np.int64)
    return first, np.ceil(hi).astype(np.int64) - first


def _share(lo: Float64, hi: Float64, cell: Index) -> Float64:
    """The part of each interval [lo, hi) that lies in its cell [cell, cell + 1)."""
    shares: Float64 = (np.minimum(hi, cell + 1) - np.maximum(lo, cell)) / (hi - lo)
    return shares
