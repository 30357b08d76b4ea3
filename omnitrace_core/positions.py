"""Where each position of a prompt lies in its sample, and the signals over these positions.

A backend maps every prompt position to coordinates of the sample (`PromptMap`). From `Positions` a
trace can later be folded into other units, or drawn as heat maps, without the model.

Symbols: P prompt positions (padding apart), n_gen response tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class PositionKind:
    """The kind of content at a prompt position (values of `PromptMap.stream`)."""

    NONE, TEXT, IMAGE, AUDIO, FRAMES, SOUND = range(6)


@dataclass(frozen=True, slots=True)
class PromptMap:
    """Where each of the P prompt positions of one sample lies in the sample's own coordinates.

    stream: [P] int8, a `PositionKind` value; part: [P] int32, -1 for chat markup.
    lo, hi: [P] float64, characters for text and seconds for sound and frames.
    box: [P, 4] float32, pixels of the original for images and frames, zeros elsewhere.
    """

    stream: NDArray[np.int8]
    part: NDArray[np.int32]
    lo: NDArray[np.float64]
    hi: NDArray[np.float64]
    box: NDArray[np.float32]

    @property
    def is_media(self) -> NDArray[np.bool_]:
        """[P], whether each position is one of an image, of frames or of sound."""
        return self.stream > PositionKind.TEXT


@dataclass(frozen=True, slots=True)
class Positions:
    """The rows of every signal over the prompt, before they are folded into units.

    rows: by signal, [n_gen, P] float32.
    """

    prompt: PromptMap
    rows: Mapping[str, NDArray[np.float32]]
