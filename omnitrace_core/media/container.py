"""What a media file is, and whether all of it is there: read from its bytes, never from its name.

Decoders are forgiving: FFmpeg plays the first half of a cut file without a word, and opens
playlists that point elsewhere. So the kind is settled here first, and containers that declare their
own size are held to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.media import adts, iso, matroska
from omnitrace_core.media.iso import read_at

HEAD_BYTES = 64
# A file with more boxes or chunks than this is not one that anybody wrote on purpose.
_MAX_BOXES = 1_000_000
# Writers to a pipe cannot know the length and put one of these (all ones, sox's and ffmpeg's).
_UNKNOWN_RIFF_SIZE = 0x7FFF_F000
_OGG_PAGE_MAX = 65_307
_FLV_VIDEO, _FLV_AVC = 9, 7


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
_FLV = Kind("FLV", ("video",))
_ADTS = Kind("AAC", ("audio",))
# Read as audio by their sound track, with FFmpeg; the others with libsndfile.
TRACKS = (_ISO, _MATROSKA, _ADTS)
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
    # MPEG-4 and MPEG-2, with and without checksums.
    (0, b"\xff\xf0", _ADTS),
    (0, b"\xff\xf1", _ADTS),
    (0, b"\xff\xf8", _ADTS),
    (0, b"\xff\xf9", _ADTS),
    (0, b"FORM", Kind("AIFF", ("audio",))),
    (4, b"ftyp", _ISO),
    (4, b"moov", _ISO),
    (4, b"mdat", _ISO),
    (4, b"wide", _ISO),
    (4, b"free", _ISO),
    (0, b"\x1a\x45\xdf\xa3", _MATROSKA),
    (8, b"AVI ", _AVI),
    (0, b"FLV\x01", _FLV),
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
        length = int.from_bytes(read_at(file, 4, 4), "little")
        declared = 8 + length if length < _UNKNOWN_RIFF_SIZE else 0
    elif kind is _ISO:
        declared = iso.declared_end(file, size)
    elif kind is _MATROSKA:
        declared = matroska.declared_end(file)
    elif kind is _ADTS:
        declared = adts.length(file)[0]
    elif kind is _OGG:
        declared = _last_page_end(file, size)
    file.seek(0)
    if declared > size:
        raise MediaCorrupt(
            f"{name}: truncated: its {kind.name if kind else ''} container declares "
            f"{declared:,} bytes, the file has {size:,}; copy it again from its source"
        )


def video_start_s(file: BinaryIO, kind: Kind | None) -> float | None:
    """When the first coded frame is shown on the file's clock; None without a video track.

    Seconds; negative if an edit list hides the frame.

    decord counts from 0 instead. Containers that are not read here are taken to begin with it.
    """
    if kind is _ISO:
        return iso.video_start_s(file)
    if kind is _MATROSKA:
        return matroska.video_start_s(file)
    if kind is _FLV:
        return _flv_start_s(file)
    return 0.0


def sound_end_s(file: BinaryIO, kind: Kind | None) -> tuple[float, bool]:
    """When the sound ends on the file's clock by what the file says, and whether that is exact.

    It is exact where it is told of the sound alone; then 0 s means that there is none.
    """
    if kind is _ADTS:
        return adts.length(file)[1], True
    if kind is _MATROSKA:
        return matroska.end_s(file), False
    if kind is _ISO:
        return iso.sound_end_s(file), True
    return 0.0, False


def _wav_end(file: BinaryIO, size: int) -> int:
    """Declared end of a WAV file's samples; 0 where the writer did not know it."""
    at = 12
    for _ in range(_MAX_BOXES):
        head = read_at(file, at, 8)
        if at >= size or len(head) < 8:
            return 0
        length = int.from_bytes(head[4:8], "little")
        if head[:4] == b"data":
            return at + 8 + length if length < _UNKNOWN_RIFF_SIZE else 0
        at += 8 + length + length % 2
    return 0


def _last_page_end(file: BinaryIO, size: int) -> int:
    """Declared end of the last OGG page."""
    start = max(0, size - _OGG_PAGE_MAX)
    tail = read_at(file, start, _OGG_PAGE_MAX)
    at = tail.rfind(b"OggS")
    if at < 0:
        return 0
    n_segments = tail[at + 26] if at + 26 < len(tail) else 0
    lacing = tail[at + 27 : at + 27 + n_segments]
    missing = 27 + n_segments - len(tail[at : at + 27 + n_segments])
    return start + at + 27 + n_segments + sum(lacing) if not missing else size + missing


def _flv_start_s(file: BinaryIO) -> float | None:
    """The first coded picture's time in an FLV file."""
    at = 9 + 4
    for _ in range(_MAX_BOXES):
        head = read_at(file, at, 16)
        if len(head) < 16:
            return None
        coded_at_ms = int.from_bytes(head[4:7], "big") + (head[7] << 24)
        is_avc = head[11] & 0x0F == _FLV_AVC
        # Of AVC, type 0 is the decoder's configuration; others say how much later they are shown.
        if head[0] & 0x1F == _FLV_VIDEO and not (is_avc and head[12] == 0):
            later_ms = int.from_bytes(head[13:16], "big", signed=True) if is_avc else 0
            return (coded_at_ms + later_ms) / 1000
        at += 11 + int.from_bytes(head[1:4], "big") + 4
    return None
