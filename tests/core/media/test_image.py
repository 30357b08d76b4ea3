"""Decoded images: their pixels, sizes and notes, and the errors of bad files."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.decoded_media import DecodedImage
from omnitrace_core.errors import InvalidSample, MediaCorrupt, MediaError, MediaTooLarge
from omnitrace_core.media import decode_part
from omnitrace_core.media.pictures.picture import to_rgb
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions
from tests.core.media_files import audio_bytes, beep, image_bytes

RULES = MediaRules()
DEFAULTS = MediaOptions()
RED = Image.new("RGB", (112, 84), (200, 30, 40))


def decode_image(data: bytes, run: MediaOptions = DEFAULTS, **options: Any) -> DecodedImage:
    part = Part("image", data=data, options=PartOptions(**options))
    decoded = decode_part(part, run, RULES)
    assert isinstance(decoded, DecodedImage)
    return decoded


def test_size_and_colour() -> None:
    decoded = decode_image(image_bytes(RED))
    assert (decoded.width, decoded.height) == (112, 84)
    assert decoded.pixels.shape == (84, 112, 3)
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.pixels == (200, 30, 40)).all()
    assert decoded.notes == ()


@pytest.mark.parametrize(
    ("image", "form", "colour", "note"),
    [
        (RED.quantize(4), "PNG", (200, 30, 40), ""),
        (RED.convert("CMYK"), "TIFF", (200, 30, 40), ""),
        (Image.new("1", (84, 84), 1), "PNG", (255, 255, 255), ""),
        (Image.new("LA", (84, 84), (0, 0)), "PNG", (255, 255, 255), "transparency"),
        (RED.convert("LA"), "PNG", (82, 82, 82), ""),
        (RED.convert("L"), "JPEG", (82, 82, 82), ""),
        (RED.convert("CMYK"), "JPEG", (200, 30, 40), ""),
        (Image.new("RGBA", (84, 84), (200, 30, 40, 0)), "WEBP", (255, 255, 255), "transparency"),
        (Image.new("RGBA", (84, 84), (200, 30, 40, 255)), "PNG", (200, 30, 40), ""),
        (Image.new("RGBA", (84, 84), (0, 0, 0, 51)), "PNG", (204, 204, 204), "transparency"),
        (Image.new("I;16", (84, 84), 0x8080), "PNG", (128, 128, 128), ""),
        (Image.new("I", (84, 84), 70_000), "TIFF", (0, 0, 0), "stretched"),
    ],
)
def test_any_mode_becomes_rgb(
    image: Image.Image, form: str, colour: tuple[int, ...], note: str
) -> None:
    decoded = decode_image(image_bytes(image, form))
    assert np.abs(decoded.pixels.astype(int) - colour).max() <= 6
    assert note in " ".join(decoded.notes)
    assert bool(decoded.notes) == bool(note)


def test_palette_transparency_is_put_on_white() -> None:
    image = Image.new("P", (84, 84), 0)
    image.putpalette([10, 20, 30])
    decoded = decode_image(image_bytes(image, "PNG", transparency=0))
    assert (decoded.pixels == 255).all()


# Where the upper left corner of what is stored is shown: (row, column), 0 for top and left.
@pytest.mark.parametrize(
    ("orientation", "place", "is_turned"),
    [
        (1, (0, 0), False),
        (2, (0, 1), False),
        (3, (1, 1), False),
        (4, (1, 0), False),
        (5, (0, 0), True),
        (6, (0, 1), True),
        (7, (1, 1), True),
        (8, (1, 0), True),
    ],
)
def test_exif_orientation(orientation: int, place: tuple[int, int], is_turned: bool) -> None:
    image = Image.new("RGB", (168, 84), "black")
    image.paste((255, 255, 255), (0, 0, 42, 21))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(image_bytes(image, "JPEG", exif=exif))
    height, width = (168, 84) if is_turned else (84, 168)
    assert (decoded.width, decoded.height) == (width, height)
    assert decoded.pixels.shape == (height, width, 3)
    corners = decoded.pixels[:: height - 1, :: width - 1].mean(axis=2) > 128
    assert [tuple(corner) for corner in np.argwhere(corners)] == [place]


def test_a_colour_that_stands_for_transparency_is_put_on_white() -> None:
    image = Image.new("RGB", (84, 84), (30, 30, 200))
    assert (decode_image(image_bytes(image, transparency=(30, 30, 200))).pixels == 255).all()
    kept = decode_image(image_bytes(image, transparency=(30, 30, 201)))
    assert (kept.pixels == (30, 30, 200)).all()


def test_only_the_first_frame_of_an_animation_is_decoded() -> None:
    frames = [Image.new("RGB", (84, 84), colour) for colour in ("red", "blue", "lime")]
    data = image_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded = decode_image(data)
    assert tuple(decoded.pixels[40, 40]) == (255, 0, 0)
    assert decoded.notes == ("first of 3 frames",)


def test_limits_of_the_part_precede_those_of_the_run_and_the_model() -> None:
    data = image_bytes(Image.new("RGB", (1120, 560)))
    assert decode_image(data).pixels.shape[:2] == (560, 1120)
    run = MediaOptions(image_max_pixels=28 * 28 * 50)
    assert decode_image(data, run).pixels.shape[:2] == (140, 280)
    shape = decode_image(data, run, max_pixels=28 * 28 * 8).pixels.shape
    assert shape[:2] == (56, 112)
    tiny = image_bytes(Image.new("RGB", (28, 28)))
    assert decode_image(tiny).pixels.shape[:2] == (56, 56)
    assert decode_image(tiny, min_pixels=28 * 28 * 16).pixels.shape[:2] == (112, 112)
    with pytest.raises(InvalidSample, match="min_pixels=9000 and max_pixels=800"):
        decode_image(tiny, min_pixels=9000, max_pixels=800)
    with pytest.raises(InvalidSample, match="max_pixels is 0"):
        decode_image(tiny, max_pixels=0)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_images_are_errors(form: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (84, 84, 3), dtype=np.uint8)
    data = image_bytes(Image.fromarray(noise), form)
    decode_image(data)
    with pytest.raises(MediaCorrupt, match="inline image"):
        decode_image(data[: int(len(data) * share)])


def test_pixel_limits_are_checked_before_decoding() -> None:
    data = image_bytes(RED)
    with pytest.raises(MediaTooLarge, match="112x84 = 9,408 pixels, above"):
        decode_image(data, MediaOptions(max_image_pixels=9_000))
    # A header that declares 60,000 x 60,000 pixels: nothing of that size may be allocated.
    bomb = bytearray(data)
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with pytest.raises(MediaTooLarge, match="downscale"):
        decode_image(bytes(bomb))


def test_pillows_warning_of_a_bomb_is_no_limit() -> None:
    data = image_bytes(Image.new("1", (10_000, 9_000)))
    assert decode_image(data, MediaOptions(image_max_pixels=784 * 4)).width == 10_000


def test_tiny_and_very_narrow_images() -> None:
    assert decode_image(image_bytes(Image.new("RGB", (1, 1)))).pixels.shape == (56, 56, 3)
    for size in ((3, 400), (10, 2000), (1, 200)):
        assert (decode_image(image_bytes(Image.new("RGB", size, (9, 9, 9)))).pixels == 9).all()
    with pytest.raises(MediaError, match="aspect ratio of 201, above 200"):
        decode_image(image_bytes(Image.new("RGB", (1, 201))))
    with pytest.raises(MediaError, match="aspect ratio of 300, above 200"):
        decode_image(image_bytes(Image.new("RGB", (600, 2))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\1\2\3" * 999, "not in a supported image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not in a supported image format"),
        (audio_bytes(beep(1, [0]), 16_000), "the bytes are WAV, not image"),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 99, "the bytes are MP4, not image"),
    ],
)
def test_bytes_that_are_not_an_image(data: bytes, message: str) -> None:
    with pytest.raises(MediaCorrupt, match=message):
        decode_image(data)


def test_damaged_exif_data_is_no_error() -> None:
    data = image_bytes(RED, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_image(data).width == 112


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_too_much_compressed_text_in_a_png(kind: bytes) -> None:
    data, text = image_bytes(RED), b"k\0\0" + zlib.compress(bytes(2_000_000))
    chunk = struct.pack(">I", len(text)) + kind + text
    chunk += struct.pack(">I", zlib.crc32(kind + text))
    with pytest.raises(MediaTooLarge, match="save the image without its metadata"):
        decode_image(data[:33] + chunk + data[33:])


def test_memory_of_32_bit_grey_images() -> None:
    grey = Image.fromarray(np.linspace(-1, 1, 3000 * 4000, dtype=np.float32).reshape(3000, 4000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rgb = np.asarray(to_rgb(grey, []))[:, :, 0]
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert (rgb[0, 0], rgb[-1, -1]) == (0, 255)
    # 46 MiB of pixels, 11 of grey, 34 of RGB (46 within Pillow); float64 would take 180 more.
    assert grown_mib < 180
    buffer = io.BytesIO()
    grey.resize((64, 48)).save(buffer, "TIFF")
    assert decode_image(buffer.getvalue()).width == 64


def test_real_images(shared_data: Path) -> None:
    images = sorted((shared_data / "media").glob("*.jpg"))
    assert len(images) == 6
    for path in images:
        decoded = decode_image(path.read_bytes())
        with Image.open(path) as image:
            assert (decoded.width, decoded.height) == image.size
        assert decoded.pixels.shape[0] % 28 == decoded.pixels.shape[1] % 28 == 0
