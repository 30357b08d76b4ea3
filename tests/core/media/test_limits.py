"""Limits on the size of decoded media, and options of parts that are out of range."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.errors import InvalidSample, MediaTooLarge
from omnitrace_core.media import SampleDecoder, decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Modality, Part, PartOptions
from tests.core.media_files import audio_bytes, beep, image_bytes, write_clip

OPTIONS, RULES = MediaOptions(), MediaRules()
RED = image_bytes(Image.new("RGB", (64, 64), "red"))
SMALL = MediaOptions(max_decoded_mib=1)


@pytest.mark.parametrize("min_pixels", [400_000_000, 10**12])
def test_options_cannot_make_an_image_too_large(min_pixels: int) -> None:
    part = Part("image", data=RED, options=PartOptions(min_pixels=min_pixels))
    with pytest.raises(MediaTooLarge, match=r"max_decoded_mib=512; lower the part's min_pixels="):
        decode_part(part, OPTIONS, RULES)


def test_options_cannot_make_a_video_too_large(tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "a.mp4", 20, sound=beep(2, [1], 44_100)))
    decode_part(Part("video", uri=clip, options=PartOptions(nframes=2)), SMALL, RULES)
    options = PartOptions(nframes=20, min_pixels=90_000)
    with pytest.raises(MediaTooLarge, match=r"lower the part's min_pixels=90000, nframes=20"):
        decode_part(Part("video", uri=clip, options=options), SMALL, RULES)


def test_the_size_of_sound_is_checked_before_decoding() -> None:
    hour = audio_bytes(np.zeros(3000, np.float32), 1)
    with pytest.raises(MediaTooLarge, match=r"183 MiB when decoded.*; cut or shrink the media"):
        decode_part(Part("audio", data=hour), MediaOptions(max_decoded_mib=100), RULES)
    part = Part("audio", data=hour, options=PartOptions(audio_end=10.0))
    assert decode_part(part, SMALL, RULES)


def test_the_limit_covers_all_media_of_a_sample() -> None:
    part = Part("image", data=RED, options=PartOptions(min_pixels=100_000))
    decoder = SampleDecoder(SMALL, RULES)
    assert len(decoder.decode_parts([part] * 3)) == 3
    with pytest.raises(MediaTooLarge, match=r"part 3: .*with it the sample's media take 1 MiB"):
        decoder.decode_parts([part] * 1000)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("video", {"video_end": math.inf}),
        ("video", {"min_frames": math.nan}),
        ("video", {"max_frames": -5}),
        ("video", {"fps": math.inf}),
        ("audio", {"audio_start": math.nan}),
        ("audio", {"audio_end": math.inf}),
        ("image", {"min_pixels": 0}),
    ],
)
def test_options_that_are_out_of_range(kind: Modality, options: dict[str, float]) -> None:
    part = Part(kind, data=RED, options=PartOptions(**options))  # type: ignore[arg-type]
    with pytest.raises(InvalidSample, match=f"option {next(iter(options))} is .*; give a number"):
        decode_part(part, OPTIONS, RULES)
