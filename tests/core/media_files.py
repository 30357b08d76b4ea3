"""Make small media files with known contents."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DATA = Path(__file__).resolve().parents[1] / "data"


def image_bytes(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """An image file in memory."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def audio_bytes(waveform: NDArray[np.floating], rate: int, form: str = "WAV") -> bytes:
    """An audio file in memory; waveform [n] or [n, channels]. Float WAV keeps every value."""
    import soundfile

    buffer = io.BytesIO()
    subtype = "FLOAT" if form == "WAV" else None
    soundfile.write(buffer, waveform, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def beep(duration_s: float, at: Sequence[float], rate: int = 16_000) -> NDArray[np.float32]:
    """Silence with a 0.1 s tone of 1 kHz at each of the given seconds."""
    waveform = np.zeros(round(duration_s * rate), dtype=np.float32)
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(round(0.1 * rate)) / rate)
    for second in at:
        first = round(second * rate)
        waveform[first : first + len(tone)] = tone
    return waveform


def onset_s(waveform: NDArray[np.float32], rate: int) -> float:
    """Seconds from the start of a waveform to the first sample at a quarter of its peak."""
    loud = np.abs(waveform) > 0.25 * np.abs(waveform).max()
    return float(np.argmax(loud)) / rate


def run_ffmpeg(*arguments: str | Path, stdin: bytes = b"") -> None:
    """Run the static ffmpeg of imageio-ffmpeg."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-threads", "1"]
    subprocess.run([*command, *map(str, arguments)], input=stdin, check=True)


def write_clip(
    path: Path,
    n_frames: int,
    *,
    fps: float = 10,
    size: tuple[int, int] = (64, 48),
    sound: NDArray[np.floating] | None = None,
    sound_rate: int = 44_100,
    video_filter: str = "null",
    output: Sequence[str] = (),
) -> Path:
    """An H.264 clip whose frame k is flat grey of level 4 k + 20, with AAC sound if one is given.

    So `grey_index` finds the number of a decoded frame. At most 58 frames.
    sound: [n] or [n, channels] at `sound_rate`, from time 0.
    """
    width, height = size
    levels = (np.arange(n_frames) * 4 + 20).astype(np.uint8)
    raw = np.broadcast_to(levels[:, None, None], (n_frames, height, width)).tobytes()
    video_in = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{width}x{height}", "-r", str(fps)]
    sound_in: list[str | Path] = []
    sound_out: list[str] = []
    if sound is not None:
        wav = path.with_suffix(".wav")
        wav.write_bytes(audio_bytes(sound, sound_rate))
        sound_in, sound_out = ["-i", wav], ["-c:a", "aac", "-b:a", "128k"]
    video_out = ["-vf", video_filter, "-fps_mode", "vfr", "-c:v", "libx264", "-qp", "4"]
    # Full range, so that decoding returns the same grey levels.
    colours = ["-pix_fmt", "yuvj420p", "-color_range", "pc"]
    run_ffmpeg(
        *video_in, "-i", "-", *sound_in, *video_out, *colours, *sound_out, *output, path, stdin=raw
    )
    return path


def grey_index(frames: NDArray[np.uint8]) -> list[int]:
    """Frame numbers of frames of a `write_clip`: [n, height, width, 3] to n numbers."""
    return [round(float(level - 20) / 4) for level in frames.mean(axis=(1, 2, 3))]
