"""What docs/official-processors.md says of the official code, and of ours beside it."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from PIL import Image

import omnitrace_core
from omnitrace_core.backends import load_backend
from omnitrace_core.backends.base import Backend
from omnitrace_core.backends.qwen_media import sound_features
from omnitrace_core.decoded_media import DecodedAudio, DecodedImage
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions, ModelOptions
from omnitrace_core.records import Part
from tests.core.media_files import audio_bytes, image_bytes
from tests.core.ready_samples import ready, sound, video

omnitrace_core.enable_transformers_vision()
from torchvision.transforms import functional  # noqa: E402
from transformers.image_utils import load_image  # noqa: E402

RULES = MediaRules()
RATE = 16_000


@pytest.fixture(scope="module")
def backend(tiny_model: str) -> Backend:
    return load_backend(ModelOptions(path=tiny_model, device="cpu"))


def ours(data: bytes) -> DecodedImage:
    decoded = decode_part(Part("image", data=data), MediaOptions(), RULES)
    assert isinstance(decoded, DecodedImage)
    return decoded


def test_sounds_are_heard_whole(backend: Any) -> None:
    """By an extractor that hears 2 s; that of the model hears 300."""
    extractor = type(backend.processor.feature_extractor)(feature_size=128, chunk_length=2)
    heard = sound(1, 3.0)
    official = extractor(heard.waveform, sampling_rate=RATE, padding="max_length")
    assert official["input_features"].shape[-1] == 200
    features, n_tokens = sound_features(extractor, heard)
    assert (features.shape[-1], n_tokens) == (300, 75)
    assert backend.processor.feature_extractor.chunk_length == 300
    signature = inspect.signature(extractor.__call__).parameters
    assert (signature["padding"].default, signature["truncation"].default) == ("max_length", True)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_rate_of_a_video_is_its_own(backend: Any) -> None:
    """The official processor takes one rate for all videos, 2 per second if none is given."""
    clips = [replace(video(1, with_sound=False), fps=fps) for fps in (2.0, 0.5)]
    tokens = backend.processor.video_token * 2
    frames = [torch.from_numpy(clip.frames).permute(0, 3, 1, 2) for clip in clips]
    official = backend.processor(
        text=[tokens], videos=frames, do_resize=False, do_sample_frames=False, return_tensors="pt"
    )
    assert [float(value) for value in official["video_second_per_grid"]] == [1.0, 1.0]
    prepared = backend.prepare([ready(["What?", *clips])])
    assert prepared.inputs["video_second_per_grid"].tolist() == [1.0, 4.0]


def test_pictures_are_upright_as_in_transformers(tmp_path: Path) -> None:
    """qwen-omni-utils takes them as they are stored."""
    turned = Image.Exif()
    turned[0x0112] = 6
    path = tmp_path / "a.jpg"
    path.write_bytes(image_bytes(Image.new("RGB", (40, 20)), "JPEG", exif=turned))
    decoded = ours(path.read_bytes())
    assert load_image(str(path)).size == (decoded.width, decoded.height) == (20, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_white(mode: str, tmp_path: Path) -> None:
    """transformers drops it; qwen-omni-utils makes it white for RGBA alone."""
    path = tmp_path / "a.png"
    path.write_bytes(image_bytes(Image.new(mode, (56, 56), (0,) * len(mode))))
    assert load_image(str(path)).getpixel((9, 9)) == (0, 0, 0)
    assert ours(path.read_bytes()).pixels.min() == 255


def test_16_bit_grey_keeps_its_upper_bits() -> None:
    grey = Image.fromarray(np.full((56, 56), 40_000, np.uint16))
    assert grey.convert("RGB").getpixel((9, 9)) == (255, 255, 255)
    assert np.unique(ours(image_bytes(grey)).pixels).tolist() == [155]


def test_sounds_are_resampled_as_by_librosa() -> None:
    """qwen-omni-utils reads sounds with `librosa.load`, whose default this is."""
    assert inspect.signature(librosa.load).parameters["res_type"].default == "soxr_hq"
    stereo = np.random.default_rng(0).normal(0, 0.1, (44_100, 2)).astype(np.float32)
    decoded = decode_part(Part("audio", data=audio_bytes(stereo, 44_100)), MediaOptions(), RULES)
    assert isinstance(decoded, DecodedAudio)
    pcm = (stereo.clip(-1, 1) * 32_767).round() / 32_768
    expected = librosa.resample(pcm.mean(axis=1), orig_sr=44_100, target_sr=RATE)
    np.testing.assert_allclose(decoded.waveform, expected[: len(decoded.waveform)], atol=2e-4)


def test_frames_are_scaled_as_by_torchvision() -> None:
    steps = np.random.default_rng(0).normal(0, 12, (240, 320, 3))
    pixels = np.clip(np.cumsum(steps, axis=1) + 128, 0, 255).astype(np.uint8)
    official = functional.resize(
        torch.from_numpy(pixels.transpose(2, 0, 1)),
        [168, 224],
        interpolation=functional.InterpolationMode.BICUBIC,
        antialias=True,
    )
    scaled = Image.fromarray(pixels).resize((224, 168), Image.Resampling.BICUBIC)
    difference = np.asarray(scaled).astype(int) - official.numpy().transpose(1, 2, 0)
    assert np.abs(difference).max() <= 2
