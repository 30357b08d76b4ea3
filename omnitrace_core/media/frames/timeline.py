"""When each frame of a video is shown, on the clock of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.media.containers.declared import Window

# Stored times are rounded to the container's unit (1 ms in Matroska and FLV): by so many units may
# they differ from a constant rate.
_TICKS = 1.2
# Edit lists are rounded to the movie's own unit, which may be 1/600 s.
_EDIT_SLACK_S = 2e-3
# Of a constant rate with gaps: the fewest steps, the share of them that may be gaps, and by how
# much of a step times may be off.
_LEAST_STEPS, _MOST_GAPS, _OFF_STEP = 20, 0.05, 0.1


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames of a video that are shown, in the order of their times.

    pts: [n_frames] int64, times as stored, which tell frames apart when they are decoded.
    starts_s, ends_s: [n_frames] float64; a frame is shown from its start until its end, which is
    the start of the next. is_steady: the frames follow each other at a constant rate.
    """

    pts: NDArray[np.int64]
    starts_s: NDArray[np.float64]
    ends_s: NDArray[np.float64]
    is_steady: bool

    @property
    def end_s(self) -> float:
        """When the last frame ends."""
        return float(self.ends_s[-1])

    def gap_notes(self) -> list[str]:
        """A note if the rate is constant but for a few gaps: packets were lost on the way here.

        Codecs do not notice all of it: they go on from the frame before.
        """
        steps = np.diff(self.starts_s)
        if len(steps) < _LEAST_STEPS:
            return []
        usual = float(np.median(steps))
        n_lost = np.round(steps / usual) - 1
        is_gap = n_lost >= 1
        is_regular = (np.abs(steps - (n_lost + 1) * usual) <= _OFF_STEP * usual).all()
        if not is_regular or not 0 < is_gap.sum() <= _MOST_GAPS * len(steps):
            return []
        n, at_s = int(n_lost[is_gap].sum()), float(self.starts_s[:-1][is_gap][0] + usual)
        return [
            f"the file seems to lack {n} of its frames, the first at {at_s:.2f} s; pictures after "
            "a gap may be damaged up to the next keyframe"
        ]


def make_timeline(
    pts: Sequence[int],
    last_duration: int | None,
    unit: Fraction,
    rate: Fraction | None,
    origin_s: float,
    window: Window,
) -> Timeline:
    """The timeline of frames by their stored times.

    pts: increasing. last_duration: of the last frame, if the container tells it. unit: seconds of a
    stored time. rate: frames per second by the container, if it tells. origin_s: where the file's
    clock begins, in stored time. Frames outside the window are left out.
    """
    stored = np.array(pts, dtype=np.int64)
    exact = (stored * float(unit) - origin_s).astype(np.float64)
    starts, grid_step = _on_grid(exact, unit, rate)
    if last_duration:
        last_s = last_duration * float(unit)
        if grid_step and abs(last_s - grid_step) <= _TICKS * unit:
            last_s = grid_step
    else:
        # Most containers do not tell how long the last frame is shown: as long as most others.
        last_s = grid_step or _usual_step(starts, rate)
    ends = np.append(starts[1:], starts[-1] + last_s)
    shown = np.ones(len(starts), dtype=bool)
    if window.begin_s is not None:
        shown &= ends > window.begin_s + _EDIT_SLACK_S
    if window.end_s is not None:
        shown &= starts < window.end_s - _EDIT_SLACK_S
    stored, starts, ends = stored[shown], starts[shown], ends[shown]
    is_steady = is_steady_rate(starts)
    if len(starts):
        # A frame that began before the window is shown from the window's beginning.
        starts[0] = max(starts[0], starts[0] if window.begin_s is None else window.begin_s)
        ends[-1] = min(ends[-1], ends[-1] if window.end_s is None else window.end_s)
    return Timeline(stored, starts, ends, is_steady)


def _on_grid(
    starts: NDArray[np.float64], unit: Fraction, rate: Fraction | None
) -> tuple[NDArray[np.float64], float]:
    """Times of a constant rate without the rounding of their storage, and the step between them.

    At another rate: the times as they are, and 0.
    """
    n = len(starts)
    if n < 2:
        return starts, 0.0
    # The line that fits all times best; two rounded ones alone would be off at the other end.
    steps = [float(np.polyfit(np.arange(n), starts, 1)[0])]
    for step in [1 / float(rate), *steps] if rate else steps:
        # The first time was rounded, too: the grid that fits all best.
        grid = np.arange(n) * step
        grid += (starts - grid).max() / 2 + (starts - grid).min() / 2
        if np.abs(starts - grid).max() <= _TICKS * unit / 2 + 1e-9:
            return grid + (starts[0] - grid[0]), step
    return starts, 0.0


def is_steady_rate(starts: NDArray[np.float64]) -> bool:
    """Whether no frame is half a step or more from its place at a constant rate."""
    if len(starts) < 3:
        return True
    even = np.linspace(starts[0], starts[-1], len(starts))
    step = (starts[-1] - starts[0]) / (len(starts) - 1)
    return bool((np.abs(starts - even) < step / 2).all())


def _usual_step(starts: NDArray[np.float64], rate: Fraction | None) -> float:
    """How long most frames are shown; 1 s for a single one if nothing tells it."""
    if len(starts) > 1:
        return float(np.median(np.diff(starts)))
    return 1 / float(rate) if rate else 1.0
