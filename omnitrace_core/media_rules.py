"""The sizes and rates of media that a model family expects; known without loading weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MediaRules:
    """Sizes and rates that a model's processor expects.

    Pixel limits are per image or per frame. Heights and widths are multiples of `factor` (patch
    size x spatial merge); the number of sampled frames is a multiple of `frame_factor`.
    `sample_rate` is in Hz.
    """

    factor: int = 28
    image_min_pixels: int = 56 * 56
    image_max_pixels: int = 28 * 28 * 16384
    video_min_pixels: int = 128 * 28 * 28
    video_max_pixels: int = 768 * 28 * 28
    frame_factor: int = 2
    min_frames: int = 4
    max_frames: int = 768
    sample_rate: int = 16_000
