"""Draw the world's pictures and clips and synthesise its sounds, as arrays.

`files` writes them through real encoders. All pictures and frames are SIDE x SIDE pixels; a second
of a clip has FPS frames.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.records import Box
from training.world.lexicon import COLOURS
from training.world.samples import Clip, Picture, Recording, Shape

SIDE = 56
FPS = 4
SAMPLE_RATE = 16_000

Pixels = NDArray[np.uint8]
Wave = NDArray[np.float32]

_NOISE_RANGE = (80, 176)  # of the background: grey, so that every colour stands out
_SOUND_LEVEL, _NOISE_LEVEL = 0.3, 0.004

# Fundamental in Hz, strengths of its harmonics, and rate of amplitude modulation in Hz (0: none).
_TIMBRES: dict[str, tuple[float, tuple[float, ...], float]] = {
    "bell": (880.0, (1.0, 0.0, 0.6, 0.0, 0.4), 0.0),
    "horn": (220.0, (1.0, 0.8, 0.6, 0.5, 0.4), 0.0),
    "whistle": (2200.0, (1.0,), 0.0),
    "buzzer": (110.0, (1.0, 0.9, 0.8, 0.7, 0.7, 0.6, 0.6), 24.0),
    "siren": (660.0, (1.0, 0.3), 3.0),
    "click": (1500.0, (1.0, 1.0), 8.0),
    "chirp": (3300.0, (1.0, 0.2), 12.0),
    "hum": (150.0, (1.0, 0.1), 0.0),
    "gong": (330.0, (1.0, 0.0, 0.0, 0.7, 0.0, 0.5), 0.0),
    "rattle": (500.0, (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5), 16.0),
}
_DECAY_PER_S = {"bell": 4.0, "gong": 2.5}  # of struck sounds; the others do not decay


def quadrant_box(quadrant: int) -> Box:
    """The box of a quadrant, in pixels."""
    half = SIDE / 2
    x, y = (quadrant % 2) * half, (quadrant // 2) * half
    return (x, y, x + half, y + half)


def draw_picture(picture: Picture) -> Pixels:
    """[SIDE, SIDE, 3] uint8."""
    return _draw(picture.shapes, np.random.default_rng(picture.seed))


def draw_clip(clip: Clip) -> Pixels:
    """[seconds * FPS, SIDE, SIDE, 3] uint8; each frame has different noise."""
    rng = np.random.default_rng(clip.seed)
    shown = [() if shape is None else (shape,) for shape in clip.shapes for _ in range(FPS)]
    return np.stack([_draw(shapes, rng) for shapes in shown])


def _draw(shapes: tuple[Shape, ...], rng: np.random.Generator) -> Pixels:
    pixels = rng.integers(*_NOISE_RANGE, (SIDE, SIDE, 3), dtype=np.uint8)
    for shape in shapes:
        if shape.quadrant is None:
            x0, y0, x1, y1 = 0.0, 0.0, float(SIDE), float(SIDE)
        else:
            x0, y0, x1, y1 = quadrant_box(shape.quadrant)
        pixels[_mask(shape.kind, (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) * 0.38)] = COLOURS[
            shape.colour
        ]
    return pixels


def _mask(kind: str, x: float, y: float, radius: float) -> NDArray[np.bool_]:
    """The pixels of a shape around (x, y)."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    across, down = np.abs(columns - x), rows - y
    if kind == "circle":
        return across**2 + down**2 <= radius**2
    if kind == "square":
        return np.maximum(across, np.abs(down)) <= radius * 0.9
    if kind == "triangle":
        return (np.abs(down) <= radius) & (across <= (down + radius) / 2)
    bar = radius / 3
    return (np.minimum(across, np.abs(down)) <= bar) & (np.maximum(across, np.abs(down)) <= radius)


def play(recording: Recording) -> Wave:
    """[seconds * SAMPLE_RATE] float32 in [-1, 1]."""
    return _play(recording.sounds, np.random.default_rng(recording.seed))


def clip_sound(clip: Clip) -> Wave | None:
    """The sound of a clip, None if it has none."""
    return None if clip.sounds is None else _play(clip.sounds, np.random.default_rng(clip.seed))


def _play(sounds: tuple[str | None, ...], rng: np.random.Generator) -> Wave:
    silence = np.zeros(SAMPLE_RATE)
    seconds = [silence if name is None else _sound(name) for name in sounds]
    wave = np.concatenate(seconds)
    return (wave + rng.normal(0, _NOISE_LEVEL, wave.size)).astype(np.float32)


@cache
def _sound(name: str) -> NDArray[np.float64]:
    """One second of a sound, with a tenth of a second's silence at its end."""
    pitch_hz, harmonics, modulation_hz = _TIMBRES[name]
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    wave = np.zeros_like(t)
    for k, strength in enumerate(harmonics, start=1):
        wave += strength * np.sin(2 * math.pi * pitch_hz * k * t)
    if modulation_hz:
        wave *= 0.5 - 0.5 * np.cos(2 * math.pi * modulation_hz * t)
    wave *= np.exp(-t * _DECAY_PER_S.get(name, 0.0))
    edge = np.minimum(np.minimum(t, 0.9 - t) / 0.02, 1.0).clip(min=0.0)
    return wave * edge * _SOUND_LEVEL / max(np.abs(wave).max(), 1e-9)
