"""Decode pictures to 8-bit RGB, upright, at the size that the caller chooses."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from omnitrace_core.errors import MediaCorrupt, MediaTooLarge
from omnitrace_core.media.containers.sniff import HEAD_BYTES, check_kind
from omnitrace_core.media.pictures.joined import file_behind
from omnitrace_core.media.pictures.picture_work import CountedFile, check_passes, frame_note
from omnitrace_core.media.progress.media_times import importing
from omnitrace_core.options import MediaOptions

# Pillow's other readers are not used: some start programs (EPS: Ghostscript) or accept almost any
# bytes.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "PPM", "JPEG2000", "AVIF", "ICO")
# What Pillow's readers raise on broken files, observed or documented.
_BROKEN = (
    OSError,
    EOFError,
    RuntimeError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
)
# Part of Pillow's message when a PNG's compressed text or colour profile unpacks to too much.
_TOO_MUCH_TEXT = "MAX_TEXT_"
# A damaged header can cause one for each of its entries.
_MAX_WARNINGS = 3
# Blocks in which the end of a file is looked for, so as to note if another follows: 0.1 s.
_MAX_BLOCKS = 500_000
# Rows of 32-bit grey values converted at once.
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture at another size. pixels: [height, width, 3] uint8; width, height: its own."""

    pixels: NDArray[np.uint8]
    width: int
    height: int
    notes: tuple[str, ...]


def read_picture(
    content: bytes,
    size_of: Callable[[int, int], tuple[int, int]],
    options: MediaOptions,
    name: str,
) -> Picture:
    """Decode an image file.

    size_of: the width and height to scale to, by those of the upright image; may raise.

    Raises:
        MediaTooLarge: above `media.max_image_pixels`, by the header, before decoding; or more
            entries in its header, or passes over its pixels, than an image needs.
        MediaCorrupt: not an image, or a truncated one.
    """
    check_kind(content[:HEAD_BYTES], "image", name)
    check_passes(content, name)
    file = CountedFile(content, name)
    with reading(name) as notes, Image.open(file, formats=pillow_formats()) as image:
        file.end_header()
        check_image_pixels(image, options, name)
        upright = ImageOps.exif_transpose(image)
        size = size_of(*upright.size)
        rgb = to_rgb(upright, notes)
        if note := frame_note(image, file):
            notes.insert(0, note)
        if found := file_behind(content, _MAX_BLOCKS):
            notes.append(f"another file ({found[0].name}) follows at byte {found[1]:,}; not read")
    pixels = np.array(rgb.resize(size, Image.Resampling.BICUBIC))
    return Picture(pixels, *upright.size, tuple(notes))


def to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB; notes on lost information are added to `notes`.

    Transparency is put on white. 16-bit grey values keep their upper bits. Wider grey values, whose
    range the file does not say, are scaled so that their minimum is black and their maximum white.
    """
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        notes.append(f"{image.mode} grey values stretched to 8 bits")
        return Image.fromarray(_stretch(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    if layer.getchannel("A").getextrema() == (255, 255):
        return layer.convert("RGB")
    notes.append("transparency put on white")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _stretch(grey: NDArray[np.float32] | NDArray[np.int32]) -> NDArray[np.uint8]:
    """Scale grey values to 0..255, a few rows at a time: float64 takes 8 bytes per pixel."""
    low, high = float(grey.min()), float(grey.max())
    if not np.isfinite(high - low):
        raise ValueError("pixel values that are not finite numbers")
    scale = 255 / (high - low) if high > low else 0.0
    stretched = np.empty(grey.shape, np.uint8)
    for at in range(0, len(grey), _ROWS_AT_ONCE):
        rows = grey[at : at + _ROWS_AT_ONCE].astype(np.float64)
        stretched[at : at + _ROWS_AT_ONCE] = ((rows - low) * scale).round()
    return stretched


def pillow_formats() -> list[str]:
    """The formats that are read, as Pillow calls them."""
    with importing():
        Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def check_image_pixels(image: Image.Image, options: MediaOptions, name: str) -> None:
    """Check the size that an image's header declares. Raises: MediaTooLarge."""
    width, height = image.size
    if width * height > options.max_image_pixels:
        raise MediaTooLarge(
            f"{name}: {width}x{height} = {width * height:,} pixels, above "
            f"media.max_image_pixels={options.max_image_pixels:,}; "
            "raise the limit in the config or downscale the image"
        )


@contextmanager
def reading(name: str) -> Iterator[list[str]]:
    """Raise Pillow's errors as media errors, and add its warnings to the list that is yielded.

    Its warning of a decompression bomb is ignored: `media.max_image_pixels` is the limit.
    """
    notes: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield notes
    except Image.DecompressionBombError as error:
        raise MediaTooLarge(f"{name}: {error}; downscale the image") from error
    except UnidentifiedImageError as error:
        raise MediaCorrupt(
            f"{name}: not in a supported image format; convert it to one of {', '.join(_FORMATS)}"
        ) from error
    except _BROKEN as error:
        if _TOO_MUCH_TEXT in str(error):
            raise MediaTooLarge(
                f"{name}: its text or colour profile unpacks to more than Pillow accepts (1 MiB, "
                "64 MiB in all); save the image without its metadata"
            ) from error
        raise MediaCorrupt(f"{name}: the image is damaged: {error}") from error
    notes.extend(f"Pillow: {warning.message}" for warning in caught[:_MAX_WARNINGS])
    if len(caught) > _MAX_WARNINGS:
        notes.append(f"Pillow: {len(caught) - _MAX_WARNINGS:,} more warnings")
