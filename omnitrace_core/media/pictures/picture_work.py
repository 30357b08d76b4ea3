"""Bound the work that a small or damaged image file can cause, by counts and not by the clock.

Pillow and the libraries below it read a file's headers entry by entry, and take as many entries as
a file has: directories, chunks, markers, fill bytes. Some joins of theirs cost the square of that,
and each scan of a JPEG file costs a pass over all of its pixels.
"""

from __future__ import annotations

import io
import re

from PIL import Image

from omnitrace_core.errors import MediaTooLarge

# Reads of a header of a file without many entries are some hundreds; those of its pixels are of
# 4 KiB and more each, as chunks of PNG files.
_MAX_READS, _BYTES_PER_READ = 200_000, 256
# Metadata in segments of JPEG files and the like; depth maps and thumbnails take some MiB. Larger
# pieces are one value each (layers of Photoshop's TIFF files), or whole files (WebP, AVIF).
_MAX_HEADER_BYTES, _PIECE_BYTES = 32 << 20, 1 << 16
# Reads that are spent on counting the frames that are not decoded.
_MAX_COUNTING_READS = 20_000
# Encoders write up to about 15 scans, one profile and one piece of EXIF.
_MAX_SCANS = _MAX_PROFILES = _MAX_EXIF_PIECES = 100
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_SCAN, _END, _APP1, _EXIF = 0xDA, 0xD9, 0xE1, b"Exif\0\0"
# In the data of a scan: any marker but a stuffed zero, a restart and a fill byte.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_REMEDY = "save the image again, without its metadata"


class CountedFile(io.BytesIO):
    """An image file in memory that is read as often as files of its size need to be, and no more.

    Raises, from `read`: MediaTooLarge.
    """

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self._name = name
        self._n_reads = 0
        self._max_reads = _MAX_READS + len(content) // _BYTES_PER_READ
        self._header_bytes: int | None = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        self._n_reads += 1
        if self._n_reads > self._max_reads:
            raise MediaTooLarge(
                f"{self._name}: more entries in its header than an image of its size needs; "
                f"{_REMEDY}"
            )
        piece = super().read(size)
        if self._header_bytes is not None and len(piece) <= _PIECE_BYTES:
            self._header_bytes += len(piece)
            if self._header_bytes > _MAX_HEADER_BYTES:
                raise MediaTooLarge(
                    f"{self._name}: more than {_MAX_HEADER_BYTES >> 20} MiB before its pixels; "
                    f"{_REMEDY}"
                )
        return piece

    def end_header(self) -> None:
        """From here on, what is read is pixels."""
        self._header_bytes = None

    def allow_reads(self, n_reads: int) -> None:
        """Allow so many more reads and no others."""
        self._n_reads, self._max_reads = 0, n_reads


def frame_note(image: Image.Image, file: CountedFile) -> str | None:
    """A note if an image, which is decoded already, has more frames than its first."""
    file.allow_reads(_MAX_COUNTING_READS)
    try:
        n_frames = getattr(image, "n_frames", 1)
    except MediaTooLarge:
        return "first of many frames"
    return f"first of {n_frames} frames" if n_frames > 1 else None


def check_passes(content: bytes, name: str) -> None:
    """Check the entries of which a single one is much work: scans of JPEG, colour profiles of PNG.

    A scan is a pass over all of a picture's pixels; a profile may unpack to 1 MiB; and each piece
    of EXIF is joined to a copy of those before it.

    Raises: MediaTooLarge.
    """
    if content[:2] == b"\xff\xd8":
        _check_segments(content, name)
    # In pixels this name is as rare as any four bytes.
    if content[:4] == b"\x89PNG" and content.count(b"iCCP") > _MAX_PROFILES:
        raise MediaTooLarge(f"{name}: more than {_MAX_PROFILES} colour profiles; {_REMEDY}")


def _check_segments(content: bytes, name: str) -> None:
    n_scans, n_pieces, at = 0, 0, 2
    while marker := _NEXT_MARKER.search(content, at):
        kind, at = content[marker.start() + 1], marker.end()
        if kind == _END:
            return
        if kind in _STANDALONE:
            continue
        n_scans += kind == _SCAN
        if n_scans > _MAX_SCANS:
            raise MediaTooLarge(
                f"{name}: more than {_MAX_SCANS} scans, each of which is a pass over all pixels; "
                "save the image again"
            )
        n_pieces += kind == _APP1 and content.startswith(_EXIF, at + 2)
        if n_pieces > _MAX_EXIF_PIECES:
            raise MediaTooLarge(f"{name}: more than {_MAX_EXIF_PIECES} pieces of EXIF; {_REMEDY}")
        at += int.from_bytes(content[at : at + 2], "big")
