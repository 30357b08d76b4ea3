"""The kind of a file by its first bytes: HEIF's brands, and MPEG-TS with time stamps."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from omnitrace_core.decoded_media import DecodedImage
from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.media import decode_part
from omnitrace_core.media.containers.sniff import HEAD_BYTES, sniff
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Modality, Part
from tests.core.media.test_animation import SIZE, animated, decode
from tests.core.media_files import image_bytes, run_ffmpeg, write_clip


def ftyp(major: bytes, *brands: bytes) -> bytes:
    box = major + bytes(4) + b"".join(brands)
    return (8 + len(box)).to_bytes(4, "big") + b"ftyp" + box + b"\0\0\0\x10metaavif" + bytes(9)


def refusal(kind: Modality, data: bytes) -> str:
    with pytest.raises(MediaCorrupt) as caught:
        decode_part(Part(kind, data=data), MediaOptions(), MediaRules())
    return str(caught.value)


@pytest.mark.parametrize("major", [b"mif1", b"msf1"])
def test_avif_files_with_a_general_brand_are_read(major: bytes) -> None:
    still = image_bytes(Image.new("RGB", SIZE, (9, 9, 9)), "AVIF")
    assert still[8:12] == b"avif"
    part = Part("image", data=still[:8] + major + still[12:])
    assert isinstance(decode_part(part, MediaOptions(), MediaRules()), DecodedImage)
    moving = animated("AVIF", 250)
    assert moving[8:12] == b"avis"
    assert len(decode(moving[:8] + major + moving[12:], nframes=6).frames) == 6


def test_other_pictures_with_a_general_brand_are_named() -> None:
    for brands in ((b"mif1", b"heic"), (b"mif1",)):
        data = ftyp(b"mif1", *brands)
        assert "the bytes are HEIC, not video" in refusal("video", data)
        assert "convert it to one of JPEG" in refusal("image", data)
    assert "the bytes are AVIF, not audio" in refusal("audio", ftyp(b"mif1", b"miaf", b"avif"))
    # Brands end where the box does, and count in pictures alone.
    assert "the bytes are HEIC" in refusal("video", ftyp(b"mif1"))
    assert "the bytes are MP4, not image" in refusal("image", ftyp(b"isom", b"mif1", b"avif"))


def test_mpeg_ts_with_time_stamps_is_named(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 20)
    for name, flag in (("a.m2ts", "1"), ("a.ts", "0")):
        run_ffmpeg("-i", clip, "-c", "copy", "-mpegts_m2ts_mode", flag, tmp_path / name)
    data = (tmp_path / "a.m2ts").read_bytes()
    for first in (data[:4], b"\xff\xfb\x90\0", b"BM\0\0", bytes(4)):
        for kind in ("video", "audio"):
            message = refusal(kind, first + data[4:])
            assert "MPEG-TS with time stamps (M2TS; rewrite it as MP4 or MPEG-TS)" in message
    plain = sniff((tmp_path / "a.ts").read_bytes()[:HEAD_BYTES])
    assert plain is not None
    assert plain.name == "MPEG-TS"
