"""What is shown when, in a file whose making is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.core.media.barcodes.bars import UPRIGHT, Matrix


@dataclass(frozen=True, slots=True)
class Truth:
    """Every frame that is shown, in order: numbers, starts_s [n_frames].

    end_s: when the last one ends, within end_slack_s. slack_s: how far times may be off, by the
    unit in which the container counts. origins_s: where the clock may begin; times here count from
    there. matrix: how the frames are turned. n_sure: so many of the first frames the file holds for
    certain, None: all. is_even: at a constant rate, where evenly spaced frames are sampled;
    else the frames are those shown at evenly spaced times. odd: why a reader may refuse the file;
    empty if it may not.
    """

    numbers: NDArray[np.int64]
    starts_s: NDArray[np.float64]
    end_s: float
    end_slack_s: float
    slack_s: float
    origins_s: tuple[float, ...] = (0.0,)
    matrix: Matrix = UPRIGHT
    n_sure: int | None = None
    is_even: bool = True
    odd: str = ""
