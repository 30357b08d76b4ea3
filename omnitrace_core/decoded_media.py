"""Decoded images, sounds and videos, as the processor of a model takes them.

Times are seconds on the clock of the original file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, weakref_slot=True)
class DecodedImage:
    """An image as the model will see it.

    pixels: [height, width, 3] uint8, already resized by the model's own rule.
    width, height: of the original, EXIF orientation applied (boxes are in these pixels).
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, weakref_slot=True)
class DecodedAudio:
    """A mono waveform.

    waveform: [n_samples] float32 in [-1, 1] at `sample_rate` Hz.
    start_s: time of the first sample in the original file; duration_s: of the original file.
    """

    waveform: NDArray[np.float32]
    sample_rate: int
    start_s: float
    duration_s: float
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, weakref_slot=True)
class DecodedVideo:
    """Sampled frames, each with its true time, and the sound track if there is one.

    frames: [n_frames, height, width, 3] uint8, resized by the model's own rule.
    frame_times_s: [n_frames] float64, presentation time of each sampled frame in the file.
    fps: sampled frames per second of video, the rate that the model's processor gets.
    width, height, duration_s: of the original.
    """

    frames: NDArray[np.uint8]
    frame_times_s: NDArray[np.float64]
    fps: float
    width: int
    height: int
    start_s: float
    end_s: float
    duration_s: float
    sound: DecodedAudio | None
    sha256: str
    notes: tuple[str, ...] = ()


DecodedMedia = DecodedImage | DecodedAudio | DecodedVideo
