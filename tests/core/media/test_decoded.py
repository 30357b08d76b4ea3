"""What decoded media take, what options may ask for, and files that change under the reader."""

from __future__ import annotations

import io
import math
import os
import resource
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.errors import (
    InvalidSample,
    MediaDenied,
    MediaError,
    MediaMissing,
    MediaTooLarge,
)
from omnitrace_core.media import MediaDecoder, decode_part
from omnitrace_core.media.fetching.fetch import media_path, read_media
from omnitrace_core.media.image import to_rgb
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import DecodedImage, Modality, Part, PartOptions
from tests.core.media_files import audio_bytes, beep, image_bytes, write_clip

OPTIONS, RULES = MediaOptions(), MediaRules()
RED, GREEN = (image_bytes(Image.new("RGB", (64, 64), name)) for name in ("red", "lime"))
SMALL = MediaOptions(max_decoded_mib=1)


@pytest.mark.parametrize("asked", [{"min_pixels": 400_000_000}, {"min_pixels": 10**12}])
def test_options_cannot_blow_up_an_image(asked: dict[str, int]) -> None:
    part = Part("image", data=RED, options=PartOptions(**asked))
    with pytest.raises(MediaTooLarge, match=r"max_decoded_mib=512; lower the part's min_pixels="):
        decode_part(part, OPTIONS, RULES)


def test_options_cannot_blow_up_a_video(tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "a.mp4", 20, sound=beep(2, [1], 44_100)))
    decode_part(Part("video", uri=clip, options=PartOptions(nframes=2)), SMALL, RULES)
    asked = PartOptions(nframes=20, min_pixels=90_000)
    with pytest.raises(MediaTooLarge, match=r"lower the part's min_pixels=90000, nframes=20"):
        decode_part(Part("video", uri=clip, options=asked), SMALL, RULES)


def test_sound_is_limited_before_it_is_read() -> None:
    hour = audio_bytes(np.zeros(3000, np.float32), 1)
    with pytest.raises(MediaTooLarge, match=r"183 MiB when decoded.*; cut or shrink the media"):
        decode_part(Part("audio", data=hour), MediaOptions(max_decoded_mib=100), RULES)
    part = Part("audio", data=hour, options=PartOptions(audio_end=10.0))
    assert decode_part(part, SMALL, RULES)


def test_the_limit_is_on_all_media_of_a_sample() -> None:
    part = Part("image", data=RED, options=PartOptions(min_pixels=100_000))
    decoder = MediaDecoder(SMALL, RULES)
    assert len(decoder.decode_parts([part] * 3)) == 3
    with pytest.raises(MediaTooLarge, match=r"part 3: .*with it the sample's media take 1 MiB"):
        decoder.decode_parts([part] * 1000)


@pytest.mark.parametrize(
    ("kind", "asked"),
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
def test_options_that_are_no_numbers(kind: Modality, asked: dict[str, float]) -> None:
    options = PartOptions(**asked)  # type: ignore[arg-type]
    with pytest.raises(InvalidSample, match=f"option {next(iter(asked))} is .*; give a number"):
        decode_part(Part(kind, data=RED, options=options), OPTIONS, RULES)


def test_a_link_that_changes_leads_nowhere_else(tmp_path: Path) -> None:
    """Whenever the name is changed: what was opened is what is checked."""
    inside, outside = tmp_path / "inside", tmp_path / "outside.png"
    inside.mkdir()
    outside.write_bytes(RED)
    (inside / "good.png").write_bytes(GREEN)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            os.link(inside / "good.png", inside / "t1")
            (inside / "t1").replace(inside / "x.png")
            (inside / "t2").symlink_to(outside)
            (inside / "t2").replace(inside / "x.png")

    changing = threading.Thread(target=change)
    changing.start()
    part, options = Part("image", uri=str(inside / "x.png")), MediaOptions(roots=(str(inside),))
    seen: list[bytes] = []
    for _ in range(3000):
        try:
            seen.append(read_media(part, options))
        except (MediaDenied, MediaMissing):
            continue
    done.set()
    changing.join()
    assert set(seen) == {GREEN}


def test_the_descriptor_is_what_decoders_read(tmp_path: Path) -> None:
    """Another file put in the place of one that was opened changes nothing."""
    file, other = tmp_path / "a.png", tmp_path / "b.png"
    file.write_bytes(GREEN)
    other.write_bytes(RED)
    with media_path(Part("image", uri=str(file)), OPTIONS) as path:
        other.replace(file)
        assert path.read_bytes() == GREEN


def test_a_file_that_is_written_to_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(GREEN)
    with (
        pytest.raises(MediaError, match="changed while it was read"),
        media_path(Part("image", uri=str(file)), OPTIONS),
    ):
        file.write_bytes(RED + b"more")


@pytest.mark.parametrize("uri", ["s3://b/k::file:///etc/passwd", "memory://a::memory://b"])
def test_chained_addresses(uri: str) -> None:
    with pytest.raises(MediaDenied, match="addresses with :: are not read"):
        read_media(Part("image", uri=uri), OPTIONS)


def test_schemes_in_capitals() -> None:
    with pytest.raises(MediaMissing, match="no such object"):
        read_media(Part("image", uri="MEMORY://nowhere/a.png"), OPTIONS)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_too_much_text_in_a_png(kind: bytes) -> None:
    data = b"k\0\0" + zlib.compress(bytes(2_000_000))
    chunk = struct.pack(">I", len(data)) + kind + data
    chunk += struct.pack(">I", zlib.crc32(kind + data))
    with pytest.raises(MediaTooLarge, match="save the image without its metadata"):
        decode_part(Part("image", data=RED[:33] + chunk + RED[33:]), OPTIONS, RULES)


def test_wide_grey_takes_little_more_than_its_pixels() -> None:
    grey = Image.fromarray(np.linspace(-1, 1, 3000 * 4000, dtype=np.float32).reshape(3000, 4000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rgb = np.asarray(to_rgb(grey, []))[:, :, 0]
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert (rgb[0, 0], rgb[-1, -1]) == (0, 255)
    # 46 MiB of pixels, 11 of grey, 34 of RGB (46 within Pillow); in float64 it were 180 more.
    assert grown_mib < 180
    buffer = io.BytesIO()
    grey.resize((64, 48)).save(buffer, "TIFF")
    assert isinstance(
        decode_part(Part("image", data=buffer.getvalue()), OPTIONS, RULES), DecodedImage
    )
