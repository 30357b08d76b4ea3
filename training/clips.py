"""Write MP4 files with real encoders: H.264, and AAC if there is sound."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ENCODE_LIMIT_S = 120


def write_clip(
    path: Path,
    frames: NDArray[np.uint8],
    fps: int,
    sound: NDArray[np.float32] | None,
    sample_rate: int,
) -> None:
    """An MP4 of the frames, [n, height, width, 3], with a mono sound track if there is one.

    The same machine writes the same bytes: one thread, and no tags of the encoder.

    Raises:
        RuntimeError: ffmpeg failed; the message has its output.
    """
    import imageio_ffmpeg
    import soundfile

    height, width = frames.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", str(fps), "-i", "pipe:0"]
    track = path.with_suffix(".track.wav")
    if sound is not None:
        soundfile.write(track, sound, sample_rate, subtype="PCM_16")
        command += ["-i", str(track), "-c:a", "aac", "-b:a", "48k"]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-threads", "1"]
    command += ["-g", str(fps), "-map_metadata", "-1", "-fflags", "+bitexact"]
    command += ["-flags:v", "+bitexact", "-flags:a", "+bitexact", str(path)]
    try:
        done = subprocess.run(
            command,
            input=frames.tobytes(),
            capture_output=True,
            timeout=_ENCODE_LIMIT_S,
            check=False,
        )
    finally:
        track.unlink(missing_ok=True)
    if done.returncode != 0:
        raise RuntimeError(f"ffmpeg could not write {path}: {done.stderr.decode(errors='replace')}")
