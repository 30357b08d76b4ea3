"""Draw the demo's pictures and clips and synthesise its sounds: small, the same each time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from training import clips

if TYPE_CHECKING:
    from PIL import Image

SAMPLE_RATE = 16_000
FPS = 8
CLIP_SIZE = (128, 96)
# Spoken sentences, made once with flite (see training/README.md).
SPEECH_DIR = Path(__file__).parent / "speech"

_PICTURE_SIZE = (160, 120)
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A filled shape around (x, y), `radius` from its centre to its edge.

    All three are fractions of the picture's height, so the right edge of a 4:3 picture is at 1.33.
    """

    kind: Literal["circle", "square", "triangle"]
    colour: str
    x: float
    y: float
    radius: float = 0.25


@dataclass(frozen=True, slots=True)
class Scene:
    """What a clip shows for `duration_s` seconds."""

    duration_s: float
    shapes: tuple[Shape, ...] = ()
    background: str = "white"


@dataclass(frozen=True, slots=True)
class Note:
    """A sine tone; frequency 0 is silence."""

    frequency_hz: float
    duration_s: float


RED_CIRCLE = Shape("circle", "red", 0.35, 0.5)
GREEN_SQUARE = Shape("square", "green", 0.98, 0.5)
YELLOW_CIRCLE = Shape("circle", "gold", 0.66, 0.5, 0.3)
BLUE_HOUSE = (Shape("square", "blue", 0.66, 0.65), Shape("triangle", "navy", 0.66, 0.2, 0.2))


def write_media(media: Path) -> list[tuple[float, float]]:
    """Write every picture, sound and clip of the corpus into the folder `media`.

    Returns when the two sentences of announcements.wav are spoken, (start, end) in seconds.
    """
    media.mkdir(parents=True, exist_ok=True)
    _write_pictures(media)
    _write_clips(media)
    return _write_sounds(media)


def write_broken_media(media: Path) -> None:
    """Write broken files: half a picture, a sound of zero bytes, a third of a clip."""
    picture = (media / "triangle.png").read_bytes()
    (media / "corrupt.png").write_bytes(picture[: len(picture) // 2])
    (media / "empty.wav").write_bytes(b"")
    clip = (media / "in_turn.mp4").read_bytes()
    (media / "truncated.mp4").write_bytes(clip[: len(clip) // 3])


def _write_pictures(media: Path) -> None:
    circles = tuple(Shape("circle", "blue", x, 0.5, 0.15) for x in (0.3, 0.66, 1.02))
    pictures = {
        "two_shapes.png": (RED_CIRCLE, GREEN_SQUARE),
        "three_circles.png": circles,
        "triangle.png": (Shape("triangle", "gold", 0.66, 0.5, 0.35),),
        "house.png": BLUE_HOUSE,
    }
    for name, shapes in pictures.items():
        draw(_PICTURE_SIZE, shapes).save(media / name)


def _write_sounds(media: Path) -> list[tuple[float, float]]:
    """Returns when the two announcements are spoken, (start, end) in seconds."""
    write_sound(media / "tones.wav", tones([Note(440, 1.0), Note(0, 0.5), Note(880, 1.5)]))
    write_sound(media / "parcel.flac", speech("parcel"))
    first, second = speech("train"), speech("meeting")
    pause = np.zeros(round(_PAUSE_S * SAMPLE_RATE), np.float32)
    write_sound(media / "announcements.wav", np.concatenate([first, pause, second]))
    middle = len(first) / SAMPLE_RATE
    end = middle + _PAUSE_S + len(second) / SAMPLE_RATE
    return [(0.0, middle), (middle + _PAUSE_S, end)]


def _write_clips(media: Path) -> None:
    triangle = Shape("triangle", "blue", 0.66, 0.5, 0.3)
    in_turn = [(RED_CIRCLE,), (GREEN_SQUARE,), (triangle,)]
    write_clip(media / "in_turn.mp4", [Scene(2.0, shapes) for shapes in in_turn])
    bell = [Scene(2.0, background="dimgray"), Scene(2.0, (YELLOW_CIRCLE,), "dimgray")]
    write_clip(media / "bell.mp4", bell, tones([Note(0, 2.0), Note(660, 2.0)]))


def draw(size: tuple[int, int], shapes: Sequence[Shape], background: str = "white") -> Image.Image:
    """An RGB picture of `size` = (width, height) pixels."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", size, background)
    pen = ImageDraw.Draw(picture)
    for shape in shapes:
        x, y, r = (size[1] * value for value in (shape.x, shape.y, shape.radius))
        box = (x - r, y - r, x + r, y + r)
        if shape.kind == "circle":
            pen.ellipse(box, fill=shape.colour)
        elif shape.kind == "square":
            pen.rectangle(box, fill=shape.colour)
        else:
            pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=shape.colour)
    return picture


def tones(notes: Sequence[Note]) -> NDArray[np.float32]:
    """The notes one after the other, [n_samples] float32 at SAMPLE_RATE, 10 ms fades."""
    fade = SAMPLE_RATE // 100
    pieces = []
    for note in notes:
        n_samples = round(note.duration_s * SAMPLE_RATE)
        phase = 2 * math.pi * note.frequency_hz * np.arange(n_samples) / SAMPLE_RATE
        edge = np.minimum(np.arange(n_samples), np.arange(n_samples)[::-1]) / fade
        pieces.append(0.4 * np.sin(phase) * np.minimum(1.0, edge))
    return np.concatenate(pieces).astype(np.float32)


def speech(name: str) -> NDArray[np.float32]:
    """One of the spoken sentences, [n_samples] float32 at SAMPLE_RATE."""
    import soundfile

    waveform, rate = soundfile.read(SPEECH_DIR / f"{name}.flac", dtype="float32")
    if rate != SAMPLE_RATE:
        raise ValueError(f"{name}.flac has {rate} Hz; convert it to {SAMPLE_RATE} Hz")
    return np.asarray(waveform, np.float32)


def write_sound(path: Path, waveform: NDArray[np.float32]) -> None:
    """A mono 16-bit file; the format follows the file's ending (.wav, .flac)."""
    import soundfile

    soundfile.write(path, waveform, SAMPLE_RATE, subtype="PCM_16")


def write_clip(
    path: Path, scenes: Sequence[Scene], sound: NDArray[np.float32] | None = None
) -> None:
    """An MP4 of the scenes, FPS frames per second, with the sound if there is one.

    Raises:
        RuntimeError: ffmpeg failed; the message has its output.
    """
    frames = [
        np.asarray(draw(CLIP_SIZE, scene.shapes, scene.background))
        for scene in scenes
        for _ in range(round(scene.duration_s * FPS))
    ]
    clips.write_clip(path, np.stack(frames), FPS, sound, SAMPLE_RATE)
