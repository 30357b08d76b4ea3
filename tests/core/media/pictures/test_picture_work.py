"""Small image files that would be much work: each ends by a count, with an image or an error."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence

import pytest
from PIL import Image

from omnitrace_core.errors import MediaCorrupt, MediaTooLarge
from omnitrace_core.media import SampleDecoder, decode_part
from omnitrace_core.media.pictures.picture_work import CountedFile
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media_files import image_bytes

RULES = MediaRules()
RED = Image.new("RGB", (64, 64), (200, 30, 40))
JPEG, PNG = image_bytes(RED, "JPEG"), image_bytes(RED, "PNG")
MANY = 400_000
# A grey picture of one pixel, at byte 8 of the file.
TIFF_TAGS = (
    (256, 1),
    (257, 1),
    (258, 8),
    (259, 1),
    (262, 1),
    (273, 8),
    (277, 1),
    (278, 1),
    (279, 1),
)


def tiff(n_directories: int, *, cyclic: bool = False) -> bytes:
    size = 2 + 12 * len(TIFF_TAGS) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in TIFF_TAGS)
    directories = (
        struct.pack("<H", len(TIFF_TAGS)) + entries + struct.pack("<I", 16 + size * following)
        for following in range(1, n_directories)
    )
    last = struct.pack("<H", len(TIFF_TAGS)) + entries + struct.pack("<I", 16 if cyclic else 0)
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + b"".join(directories) + last


def overlapping_tiff(n_directories: int) -> bytes:
    """Directories of 65,535 entries each, which begin 8 bytes after each other."""
    first = tiff(1)
    start, step = len(first), 8
    body = bytearray(b"\xff\xff\1\0" * (16_384 * 3 + n_directories * step // 4 + 16))
    for k in range(n_directories):
        place = step * k + 2 + 12 * 65_535
        body[place : place + 4] = struct.pack("<I", start + step * (k + 1))
    return first[:-4] + struct.pack("<I", start) + bytes(body)


def big_tiff(n_entries: int) -> bytes:
    entries = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in TIFF_TAGS)
    more = struct.pack("<HHQQ", 60_000, 3, 1, 1) * n_entries
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16)
    return head + struct.pack("<Q", len(TIFF_TAGS) + n_entries) + entries + more + bytes(8)


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(chunks: bytes, before: bytes = b"IDAT") -> bytes:
    at = PNG.index(before) - 4
    return PNG[:at] + chunks + PNG[at:]


def segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(segments: bytes) -> bytes:
    return JPEG[:2] + segments + JPEG[2:]


def scans(n: int, size: int = 64) -> bytes:
    """A progressive JPEG file with its last scan `n` more times."""
    content = image_bytes(Image.new("RGB", (size, size)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * n + content[-2:]


def gif(n_frames: int, comments: bytes = b"") -> bytes:
    frame = b"\x21\xf9\4\4\5\0\0\0\x2c\0\0\0\0" + struct.pack("<HHB", 1, 1, 0) + b"\2\2\x44\1\0"
    head = b"GIF89a" + struct.pack("<HH", 8, 8) + b"\x80\0\0" + bytes(3) + b"\xff" * 3
    return head + comments + frame * n_frames + b";"


def animated(form: str, n: int) -> bytes:
    frames = [Image.new("RGB", (16, 16), (i % 256, i // 256, 0)) for i in range(n)]
    content = io.BytesIO()
    options = {"lossless": True} if form == "WEBP" else {}
    frames[0].save(content, form, save_all=True, append_images=frames[1:], **options)
    return content.getvalue()


def icon(n_entries: int) -> bytes:
    picture = image_bytes(Image.new("RGBA", (16, 16), "red"))
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), 6 + 16 * n_entries)
    return struct.pack("<HHH", 0, 1, n_entries) + entry * n_entries + picture


def exif(n_entries: int) -> bytes:
    """Entries that all claim the same kilobyte."""
    entries = (struct.pack("<HHII", 1 + k, 7, 1024, 8) for k in range(n_entries))
    return b"II*\0" + struct.pack("<IH", 8, n_entries) + b"".join(entries) + bytes(1028)


ZEROS = zlib.compress(bytes(8 << 20))
PROFILE = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(1 << 20)))
# What ends with the image, and its first note, if any.
READ: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "tiff of many directories": (lambda: tiff(20_000), "first of many frames"),
    "tiff of some directories": (lambda: tiff(200), "first of 200 frames"),
    "tiff in a circle": (lambda: tiff(3, cyclic=True), "first of 3 frames"),
    "tiff, overlapping": (lambda: overlapping_tiff(200), "first of many frames"),
    "gif of many frames": (lambda: gif(100_000), "first of many frames"),
    "webp of many frames": (lambda: animated("WEBP", 500), "first of 500 frames"),
    "png of many frames": (lambda: animated("PNG", 500), "first of 500 frames"),
    "mpo of many pictures": (lambda: animated("MPO", 100), "first of 100 frames"),
    "png that tells frames": (
        lambda: png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
        "first of 2147483648 frames",
    ),
    "icon of many entries": (lambda: icon(65_535), ""),
    "jpeg exif of many entries": (lambda: jpeg(segment(0xE1, b"Exif\0\0" + exif(5_000))), ""),
    "jpeg of usual scans": (lambda: scans(20), ""),
    "jpeg of some segments": (lambda: jpeg(segment(0xE5, bytes(60_000)) * 100), ""),
}
REFUSED: Mapping[str, Callable[[], bytes]] = {
    "big tiff of one directory": lambda: big_tiff(MANY),
    "png chunks": lambda: png(chunk(b"teSt") * MANY),
    "png chunks behind": lambda: png(chunk(b"teSt") * MANY, b"IEND"),
    "png empty pixels": lambda: png(chunk(b"IDAT") * MANY),
    "png texts": lambda: png(chunk(b"tEXt", b"k\0v") * MANY),
    "png zTXt": lambda: png(chunk(b"zTXt", b"k\0\0" + ZEROS)),
    "png iTXt": lambda: png(chunk(b"iTXt", b"k\0\1\0\0\0" + ZEROS) * 50),
    "png zTXt behind": lambda: png(chunk(b"zTXt", b"k\0\0" + ZEROS), b"IEND"),
    "png profile": lambda: png(chunk(b"iCCP", b"p\0\0" + ZEROS)),
    "png profiles": lambda: png(PROFILE * 200),
    "gif comments": lambda: gif(2, b"\x21\xfe\1A\0" * MANY),
    "jpeg segments": lambda: jpeg(segment(0xE5) * MANY),
    "jpeg comments": lambda: jpeg(segment(0xFE, b"x") * MANY),
    "jpeg exif in pieces": lambda: jpeg(segment(0xE1, b"Exif\0\0x") * MANY),
    "jpeg exif in large pieces": lambda: jpeg(segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 600),
    "jpeg profiles": lambda: jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1x") * MANY),
    "jpeg tables": lambda: jpeg(segment(0xDB, bytes(65)) * MANY),
    "jpeg fill bytes": lambda: jpeg(b"\xff" * MANY),
    "jpeg scans": lambda: scans(100),
    "jpeg scans of many pixels": lambda: scans(2_000, 2_000),
    "ppm comment": lambda: b"P6\n#" + b"c" * MANY + b"\n1 1\n255\nabc",
    "ppm comments": lambda: b"P6\n" + b"#\n" * MANY + b"1 1\n255\nabc",
}


def decoded(content: bytes) -> Sequence[str]:
    media = decode_part(Part("image", data=content), MediaOptions(), RULES)
    return media.notes


@pytest.mark.parametrize("name", READ)
def test_much_that_is_not_needed_is_left_out(name: str) -> None:
    make, note = READ[name]
    notes = decoded(make())
    assert (notes[0] if note else "") == note
    assert len(notes) <= 6


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_too_much_is_refused(name: str) -> None:
    with pytest.raises(MediaTooLarge):
        decoded(REFUSED[name]())


def test_all_within_a_deadline() -> None:
    """In one child that is killed after some seconds without progress, and images report none."""
    decoder = SampleDecoder(MediaOptions(decode_timeout_s=20), RULES, isolate=True)
    for make in (
        lambda: tiff(60_000),
        lambda: scans(3_000, 4_000),
        lambda: jpeg(segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 2_000),
        lambda: png(PROFILE * 20_000),
    ):
        with contextlib.suppress(MediaTooLarge):
            decoder.decode_part(Part("image", data=make()))


def test_reads_are_counted_by_the_size_of_the_file() -> None:
    """A large file of many small pieces, such as rows of pixels, is read."""
    file = CountedFile(bytes(100 << 20), "x")
    file.end_header()
    for _ in range(500_000):
        file.read(1)
    file.allow_reads(1)
    file.read(1)
    with pytest.raises(MediaTooLarge, match="x: more entries"):
        file.read(1)


def test_a_large_value_of_a_header_is_no_fault() -> None:
    """Layers in TIFF files of image editors are one value of any size."""
    layers = bytes(40 << 20)
    content = io.BytesIO()
    RED.save(content, "TIFF", tiffinfo={37_724: layers})
    assert decoded(content.getvalue()) == ()
    with pytest.raises(MediaCorrupt):
        decoded(content.getvalue()[: 30 << 20])


def test_many_warnings_are_one_note() -> None:
    notes = decoded(png(chunk(b"eXIf", exif(5_000)), b"IDAT"))
    assert len(notes) == 4
    assert notes[-1].endswith(" more warnings")
