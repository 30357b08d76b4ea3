"""What a media file is, and whether all of it is there: read from its bytes, never from its name.

Decoders are forgiving: FFmpeg plays the first half of a cut file without a word, and opens
playlists that point elsewhere. So the kind is settled here first, and containers that declare their
own size are held to it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from omnitrace_core.errors import MediaCorrupt

HEAD_BYTES = 64
# A file with more boxes or chunks than this is not one that anybody wrote on purpose.
_MAX_BOXES = 1_000_000
# Writers to a pipe cannot know the length and put one of these (all ones, sox's and ffmpeg's).
_UNKNOWN_RIFF_SIZE = 0x7FFF_F000
_OGG_PAGE_MAX = 65_307


@dataclass(frozen=True, slots=True)
class Kind:
    """A file format: its name, and the part types that it can stand for."""

    name: str
    types: tuple[str, ...]


_ISO = Kind("MP4", ("video", "audio"))
_OGG = Kind("OGG", ("audio", "video"))
_WAV = Kind("WAV", ("audio",))
_AVI = Kind("AVI", ("video",))
_MATROSKA = Kind("Matroska", ("video", "audio"))
_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\xff\xd8\xff", Kind("JPEG", ("image",))),
    (0, b"\x89PNG\r\n\x1a\n", Kind("PNG", ("image",))),
    (0, b"GIF8", Kind("GIF", ("image",))),
    (8, b"WEBP", Kind("WebP", ("image",))),
    (0, b"BM", Kind("BMP", ("image",))),
    (0, b"II*\0", Kind("TIFF", ("image",))),
    (0, b"MM\0*", Kind("TIFF", ("image",))),
    (4, b"jP  ", Kind("JPEG 2000", ("image",))),
    (4, b"ftypavif", Kind("AVIF", ("image",))),
    (4, b"ftyphei", Kind("HEIC", ("image",))),
    (8, b"WAVE", _WAV),
    (0, b"fLaC", Kind("FLAC", ("audio",))),
    (0, b"OggS", _OGG),
    (0, b"ID3", Kind("MP3", ("audio",))),
    (0, b"\xff\xfb", Kind("MP3", ("audio",))),
    (0, b"\xff\xf3", Kind("MP3", ("audio",))),
    (0, b"FORM", Kind("AIFF", ("audio",))),
    (4, b"ftyp", _ISO),
    (4, b"moov", _ISO),
    (4, b"mdat", _ISO),
    (4, b"wide", _ISO),
    (4, b"free", _ISO),
    (0, b"\x1a\x45\xdf\xa3", _MATROSKA),
    (8, b"AVI ", _AVI),
    (0, b"FLV\x01", Kind("FLV", ("video",))),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind("ASF", ("video", "audio"))),
    (0, b"\x00\x00\x01\xba", Kind("MPEG", ("video",))),
    (0, b"\x47\x40", Kind("MPEG-TS", ("video",))),
)


def sniff(head: bytes) -> Kind | None:
    """The format whose signature the first bytes carry, None if we know none."""
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    return None


def check_kind(head: bytes, part_type: str, name: str) -> Kind | None:
    """The format of a file that is to be an image, an audio or a video.

    Raises:
        MediaCorrupt: the bytes are those of another kind of media.
    """
    kind = sniff(head)
    if kind is not None and part_type not in kind.types:
        raise MediaCorrupt(
            f"{name}: the bytes are {kind.name}, not {part_type}; correct the part's type or uri"
        )
    return kind


def check_complete(file: BinaryIO, kind: Kind | None, name: str) -> None:
    """Hold a file to the size that its own container declares.

    Raises:
        MediaCorrupt: the container goes on beyond the end of the file.
    """
    size = file.seek(0, 2)
    declared = 0
    if kind is _WAV:
        declared = _wav_end(file, size)
    elif kind is _AVI:
        length = int.from_bytes(_read(file, 4, 4), "little")
        declared = 8 + length if length < _UNKNOWN_RIFF_SIZE else 0
    elif kind is _ISO:
        declared = max((b.end for b in _boxes(file, 0, size) if b.type in _ISO_LOAD), default=0)
    elif kind is _MATROSKA:
        declared = _segment_end(file)
    elif kind is _OGG:
        declared = _last_page_end(file, size)
    file.seek(0)
    if declared > size:
        raise MediaCorrupt(
            f"{name}: truncated: its {kind.name if kind else ''} container declares "
            f"{declared:,} bytes, the file has {size:,}; copy it again from its source"
        )


def video_start_s(file: BinaryIO, kind: Kind | None) -> float | None:
    """When the first frame is shown on the file's clock, in seconds; None without a video track.

    decord counts from 0 instead. MP4 and MOV tell by the empty edits that open the track's edit
    list (ISO/IEC 14496-12, 8.6.6). Other containers are taken to begin with their first frame.
    """
    moov = _find(file, b"moov", 0, file.seek(0, 2)) if kind is _ISO else None
    if moov is None:
        return 0.0
    tracks = ((b.body, min(b.end, moov[1])) for b in _boxes(file, *moov) if b.type == b"trak")
    video = next((track for track in tracks if _handler(file, track) == b"vide"), None)
    if video is None:
        return None
    timescale = _timescale(file, moov)
    return _empty_edits(file, video) / timescale if timescale else 0.0


_ISO_LOAD = (b"moov", b"mdat", b"moof")


@dataclass(frozen=True, slots=True)
class _Box:
    type: bytes
    body: int
    end: int


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """Boxes that begin in [start, end); `body` and `end` are file offsets, `end` as declared."""
    for _ in range(_MAX_BOXES):
        head = _read(file, start, 16) if start + 8 <= end else b""
        if len(head) < 8:
            return
        size, body = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:16], "big"), start + 16
        box = _Box(head[4:8], body, end if size == 0 else start + size)
        if box.end < body:
            return
        yield box
        start = box.end


def _find(file: BinaryIO, path: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Body of the first box at `path` (types joined by /), as [start, end) in the file."""
    first, _, rest = path.partition(b"/")
    for box in _boxes(file, start, end):
        if box.type == first:
            inside = (box.body, min(box.end, end))
            return _find(file, rest, *inside) if rest else inside
    return None


def _timescale(file: BinaryIO, moov: tuple[int, int]) -> int:
    """Units per second of the movie's times; 0 if it does not say."""
    found = _find(file, b"mvhd", *moov)
    if found is None:
        return 0
    # Version and flags, two dates of 4 or (version 1) 8 bytes each, then the scale.
    at = found[0] + (20 if _read(file, found[0], 1) == b"\1" else 12)
    return int.from_bytes(_read(file, at, 4), "big")


def _handler(file: BinaryIO, track: tuple[int, int]) -> bytes:
    """What a track carries: b"vide", b"soun", ..."""
    found = _find(file, b"mdia/hdlr", *track)
    return _read(file, found[0] + 8, 4) if found else b""


def _empty_edits(file: BinaryIO, track: tuple[int, int]) -> int:
    """Length of the empty edits that open a track, in units of the movie's time scale."""
    found = _find(file, b"edts/elst", *track)
    if found is None:
        return 0
    form = ">Qq4x" if _read(file, found[0], 1) == b"\1" else ">Ii4x"
    total, at = 0, found[0] + 8
    while at < found[1]:
        entry = _read(file, at, struct.calcsize(form))
        if len(entry) < struct.calcsize(form):
            break
        duration, media_time = struct.unpack(form, entry)
        if media_time != -1:
            break
        total += duration
        at += len(entry)
    return total


def _wav_end(file: BinaryIO, size: int) -> int:
    """Declared end of a WAV file's samples; 0 where the writer did not know it."""
    at = 12
    for _ in range(_MAX_BOXES):
        head = _read(file, at, 8)
        if at >= size or len(head) < 8:
            return 0
        length = int.from_bytes(head[4:8], "little")
        if head[:4] == b"data":
            return at + 8 + length if length < _UNKNOWN_RIFF_SIZE else 0
        at += 8 + length + length % 2
    return 0


def _segment_end(file: BinaryIO) -> int:
    """Declared end of a Matroska file's segment; 0 where the writer did not know it."""
    at = 0
    for _ in range(16):
        head = _read(file, at, 12)
        n_id = _vint_length(head[:1])
        n_size = _vint_length(head[n_id : n_id + 1])
        if not n_id or not n_size:
            return 0
        bits = 7 * n_size
        length = int.from_bytes(head[n_id : n_id + n_size], "big") & ((1 << bits) - 1)
        end = at + n_id + n_size + length
        if head[:4] == b"\x18\x53\x80\x67":
            return 0 if length == (1 << bits) - 1 else end
        at = end
    return 0


def _vint_length(first: bytes) -> int:
    """Bytes of an EBML variable-length integer, by its first byte; 0 if that is not one."""
    return 9 - first[0].bit_length() if first and first[0] else 0


def _last_page_end(file: BinaryIO, size: int) -> int:
    """Declared end of the last OGG page."""
    start = max(0, size - _OGG_PAGE_MAX)
    tail = _read(file, start, _OGG_PAGE_MAX)
    at = tail.rfind(b"OggS")
    if at < 0:
        return 0
    n_segments = tail[at + 26] if at + 26 < len(tail) else 0
    lacing = tail[at + 27 : at + 27 + n_segments]
    missing = 27 + n_segments - len(tail[at : at + 27 + n_segments])
    return start + at + 27 + n_segments + sum(lacing) if not missing else size + missing


def _read(file: BinaryIO, at: int, n: int) -> bytes:
    file.seek(at)
    return file.read(n)
