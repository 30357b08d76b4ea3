"""What the libraries alone need for a result of the same size as ours: the baselines of media.py.

Each call takes a file and what ours decoded from it, of which only sizes and rates are read.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedVideo


def pillow_image(path: Path, like: DecodedImage) -> object:
    """Pillow opens, converts and resizes."""
    height, width, _ = like.pixels.shape
    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def soundfile_audio(path: Path, like: DecodedAudio) -> object:
    """soundfile reads, and soxr resamples if the file has another rate than the model."""
    import librosa
    import soundfile

    waveform, rate = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
    if rate == like.sample_rate:
        return waveform
    return librosa.resample(waveform, orig_sr=rate, target_sr=like.sample_rate, res_type="soxr_hq")


def decord_audio(path: Path, like: DecodedAudio) -> object:
    """decord decodes and resamples a track."""
    import decord

    return decord.AudioReader(str(path), sample_rate=like.sample_rate, mono=True)[:].asnumpy()


def decord_video(path: Path, like: DecodedVideo) -> object:
    """decord reads as many evenly spaced frames, and the sound if ours decoded it."""
    import decord

    n_frames, height, width, _ = like.frames.shape
    reader = decord.VideoReader(str(path), num_threads=1)
    picks = np.linspace(0, len(reader) - 1, n_frames).round().astype(int)
    frames = _resized(list(reader.get_batch(picks).asnumpy()), width, height)
    return frames, None if like.sound is None else decord_audio(path, like.sound)


def pyav_audio(path: Path, like: DecodedAudio) -> object:
    """PyAV decodes a track, and FFmpeg's resampler converts it."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=like.sample_rate)
    with av.open(str(path)) as file:
        blocks = [
            block.to_ndarray()
            for frame in file.decode(audio=0)
            for block in resampler.resample(frame)
        ]
    return np.concatenate([*blocks, *(b.to_ndarray() for b in resampler.resample(None))], axis=1)


def pyav_video(path: Path, like: DecodedVideo) -> object:
    """PyAV decodes all frames and converts as many, evenly spaced; the sound if ours decoded it."""
    import av

    n_frames, height, width, _ = like.frames.shape
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        picks = set(np.linspace(0, stream.frames - 1, n_frames).round().astype(int).tolist())
        chosen = [
            frame.to_ndarray(format="rgb24")
            for number, frame in enumerate(file.decode(stream))
            if number in picks
        ]
    frames = _resized(chosen, width, height)
    return frames, None if like.sound is None else pyav_audio(path, like.sound)


def _resized(frames: Sequence[Any], width: int, height: int) -> NDArray[np.uint8]:
    images = (Image.fromarray(frame) for frame in frames)
    return np.stack(
        [np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) for image in images]
    )
