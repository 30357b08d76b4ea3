"""Rewrite boxes of small MP4 files, such as edit lists and display matrices (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.core.media.barcodes.bars import HEIGHT, WIDTH, Matrix

# Duration in the movie's units, media time in the track's units (-1: nothing is shown), rate.
Edit = tuple[int, int, float]


def edits_of(data: bytes) -> list[Edit]:
    """The edit list of the first track."""
    (_, body), (_, end) = _path(data, b"moov/trak/edts/elst")[-1]
    form = ">Qqi" if data[body] else ">Iii"
    entries = struct.iter_unpack(form, data[body + 8 : end])
    return [(duration, time, rate / 65536) for duration, time, rate in entries]


def with_edits(data: bytes, edits: Sequence[Edit]) -> bytes:
    """A file, its moov box behind the media, with another edit list in its first track."""
    content = struct.pack(">II", 0, len(edits))
    for duration, time, rate in edits:
        content += struct.pack(">Iii", duration, time, round(rate * 65536))
    return with_content(data, b"moov/trak/edts/elst", content)


def content_of(data: bytes, path: bytes) -> bytes:
    """What the box at a path holds; of several of a name, the first."""
    (_, body), (_, end) = _path(data, path)[-1]
    return data[body:end]


def with_content(data: bytes, path: bytes, content: bytes) -> bytes:
    """A file, its moov box behind the media, with other content of the box at a path."""
    places = _path(data, path)
    (_, body), (_, end) = places[-1]
    grown = len(content) - (end - body)
    changed = bytearray(data)
    for (start, _), (_, box_end) in places:
        struct.pack_into(">I", changed, start, box_end - start + grown)
    return bytes(changed[:body] + content + changed[end:])


def with_matrix(data: bytes, matrix: Matrix) -> bytes:
    """A file whose first track is shown turned by a display matrix (8.3.2)."""
    (_, body), _ = _path(data, b"moov/trak/tkhd")[-1]
    at = body + (52 if data[body] else 40)
    a, b, c, d = matrix
    # The turned picture is moved back to where both of its coordinates begin at 0.
    x = -min(0, a * WIDTH) - min(0, c * HEIGHT)
    y = -min(0, b * WIDTH) - min(0, d * HEIGHT)
    changed = bytearray(data)
    one, last = 1 << 16, 1 << 30
    struct.pack_into(
        ">9i", changed, at, a * one, b * one, 0, c * one, d * one, 0, x * one, y * one, last
    )
    return bytes(changed)


def scales(data: bytes) -> tuple[int, int]:
    """Units per second of the movie, and of its first track."""
    found = []
    for path in (b"moov/mvhd", b"moov/trak/mdia/mdhd"):
        (_, body), _ = _path(data, path)[-1]
        found.append(int.from_bytes(data[body + (20 if data[body] else 12) :][:4], "big"))
    return found[0], found[1]


def _path(data: bytes, path: bytes) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """((start, body), (start, end)) of the first box of each step."""
    places, start, end = [], 0, len(data)
    for step in path.split(b"/"):
        while True:
            size, kind = struct.unpack_from(">I4s", data, start)
            if kind == step:
                break
            start += size
            assert start < end, f"no {path!r}"
        places.append(((start, start + 8), (start, start + size)))
        start, end = start + 8, start + size
    return places
