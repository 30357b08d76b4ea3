"""Find what a media file is, and whether all of it is there, from its bytes and not its name.

Decoders are forgiving: FFmpeg plays the first half of a cut file without a word, and opens
playlists that point elsewhere. So the kind is settled here first, from a list of what is read, and
every container is followed to its end.

What goes on to FFmpeg has a signature that its own probe ranks first, and none of those it takes
for a playlist or another text that names files: MP4, FLV and AVI have a zero byte, which ends a
text, before one could begin; Matroska must say that it is one, and bare AAC is frames throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.media.containers import adts, flac, flv, iso, matroska, mp3, ogg, riff
from omnitrace_core.media.containers.declared import Declared, read_at

HEAD_BYTES = 4096
_TS_PACKET = 188
_NO_END = "MPEG-TS does not tell its length, so nobody knows whether the file was cut"


@dataclass(frozen=True, slots=True)
class Kind:
    """A file format: its name, the part types that it can stand for, and FFmpeg's name for it."""

    name: str
    types: tuple[str, ...] = ()
    av_format: str = ""


MP3 = Kind("MP3", ("audio",), "mp3")
_FLAC = Kind("FLAC", ("audio",))
ISO = Kind("MP4", ("video", "audio"), "mov")
MATROSKA = Kind("Matroska", ("video", "audio"), "matroska")
_OGG = Kind("OGG", ("audio",))
_WAV = Kind("WAV", ("audio",))
_AIFF = Kind("AIFF", ("audio",))
_CAF = Kind("CAF", ("audio",))
AVI = Kind("AVI", ("video", "audio"), "avi")
FLV = Kind("FLV", ("video", "audio"), "flv")
MPEG_TS = Kind("MPEG-TS", ("video", "audio"), "mpegts")
_M2TS = Kind("MPEG-TS with time stamps (M2TS; rewrite it as MP4 or MPEG-TS)")
_ADTS = Kind("AAC", ("audio",), "aac")
_TIFF = Kind("TIFF", ("image",))
# Videos if they are animated.
_PNG = Kind("PNG", ("image", "video"))
_GIF = Kind("GIF", ("image", "video"))
_WEBP = Kind("WebP", ("image", "video"))
_AVIF = Kind("AVIF", ("image", "video"))
_HEIC = Kind("HEIC", ("image",))
ANIMATIONS = (_PNG, _GIF, _WEBP, _AVIF)
# Read as audio by their sound track, with FFmpeg; the others with libsndfile.
TRACKS = (ISO, MATROSKA, AVI, FLV, MPEG_TS, _ADTS)
_READ = {
    "audio": "WAV, FLAC, MP3, OGG, AIFF, CAF, M4A, AAC or the sound of a video",
    "video": "MP4, MOV, MKV, WebM, AVI, FLV or MPEG-TS, or an animated GIF, WebP, PNG or AVIF",
}
# Structural brands of pictures (ISO/IEC 23008-12), whatever their coding.
_HEIF = (b"ftypmif1", b"ftypmsf1", b"ftypmiaf", b"ftypMA1A", b"ftypMA1B")
Signature = tuple[tuple[int, bytes], ...]
_SIGNATURES: tuple[tuple[Kind, Signature], ...] = (
    (Kind("JPEG", ("image",)), ((0, b"\xff\xd8\xff"),)),
    (_PNG, ((0, b"\x89PNG\r\n\x1a\n"),)),
    (_GIF, ((0, b"GIF8"),)),
    (_WEBP, ((0, b"RIFF"), (8, b"WEBP"))),
    (_TIFF, ((0, b"II*\0"),)),
    (_TIFF, ((0, b"MM\0*"),)),
    (Kind("JPEG 2000", ("image",)), ((0, b"\0\0\0\x0cjP  "),)),
    (_AVIF, ((0, b"\0"), (4, b"ftypavif"))),
    (_AVIF, ((0, b"\0"), (4, b"ftypavis"))),
    (_HEIC, ((0, b"\0"), (4, b"ftyphei"))),
    # Packets of 192 bytes; the time before the first of them may be any four bytes.
    (_M2TS, ((4, b"\x47"), (196, b"\x47"), (388, b"\x47"))),
    (Kind("BMP", ("image",)), ((0, b"BM"),)),
    (_WAV, ((0, b"RIFF"), (8, b"WAVE"))),
    (_WAV, ((0, b"RF64"), (8, b"WAVE"))),
    (_WAV, ((0, b"BW64"), (8, b"WAVE"))),
    (_AIFF, ((0, b"FORM"), (8, b"AIFF"))),
    (_AIFF, ((0, b"FORM"), (8, b"AIFC"))),
    (_CAF, ((0, b"caff\0\x01"),)),
    (_FLAC, ((0, b"fLaC"),)),
    (_OGG, ((0, b"OggS\0"),)),
    (MP3, ((0, b"ID3"),)),
    # MPEG-1, MPEG-2 and Fraunhofer's 2.5, with and without checksums.
    *((MP3, ((0, bytes((0xFF, second))),)) for second in (0xFB, 0xFA, 0xF3, 0xF2, 0xE3, 0xE2)),
    # MPEG-4 and MPEG-2, with and without checksums.
    *((_ADTS, ((0, bytes((0xFF, second))),)) for second in (0xF1, 0xF0, 0xF9, 0xF8)),
    *(
        (ISO, ((0, b"\0"), (4, box)))
        for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    ),
    (MATROSKA, ((0, matroska.MAGIC),)),
    (AVI, ((0, b"RIFF"), (8, b"AVI LIST"), (20, b"hdrl"))),
    (FLV, ((0, b"FLV\x01"), (5, b"\0\0\0\x09"))),
    (MPEG_TS, ((0, b"\x47"), (188, b"\x47"), (376, b"\x47"))),
    # Known, so as to be named in the error.
    (Kind("ASF (WMA, WMV)"), ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),)),
    (Kind("MPEG-PS"), ((0, b"\0\0\x01\xba"),)),
    (Kind("a playlist"), ((0, b"#EXTM3U"),)),
)


def sniff(head: bytes) -> Kind | None:
    """The format whose signature the first bytes carry, None if we know none."""
    for kind, signature in _SIGNATURES:
        if all(head[at : at + len(magic)] == magic for at, magic in signature):
            if kind is MATROSKA and not matroska.names_itself(head):
                return None
            return _coding(head) if kind is ISO and head[4:12] in _HEIF else kind
    return None


def _coding(head: bytes) -> Kind:
    """What a HEIF file is whose first brand does not tell: the compatible ones do.

    Image sequences that are no AVIF are videos, and read as such.
    """
    brands = {head[at : at + 4] for at in range(16, int.from_bytes(head[:4], "big"), 4)[:100]}
    if brands & {b"avif", b"avis"}:
        return _AVIF
    return ISO if head[8:12] == b"msf1" else _HEIC


def check_kind(head: bytes, part_type: str, name: str) -> Kind | None:
    """The format of a file that is to be an image, an audio or a video, by its first HEAD_BYTES.

    None only for images: Pillow reads some that are not listed here, and opens no other files.

    Raises:
        MediaCorrupt: the bytes are those of another kind of media, or of none that is read.
    """
    kind = sniff(head)
    if kind is not None and part_type in kind.types:
        return kind
    if kind is not None and kind.types:
        raise MediaCorrupt(
            f"{name}: the bytes are {kind.name}, not {part_type}; correct the part's type or uri"
        )
    if part_type == "image" and kind is None:
        return None
    raise MediaCorrupt(
        f"{name}: {kind.name if kind else 'unknown format'}: no {part_type} format that we read; "
        f"use {_READ.get(part_type, 'JPEG or PNG')}"
    )


def check_complete(file: BinaryIO, kind: Kind | None, name: str) -> tuple[str, ...]:
    """Compare a file with what its container declares. Returns notes: what cannot be checked.

    Raises:
        MediaCorrupt: the container goes on beyond the end of the file, the file beyond the
            container's, or it refers to other files.
    """
    size = file.seek(0, 2)
    declared = _declared(file, kind, size)
    if declared.fault:
        raise MediaCorrupt(f"{name}: {declared.fault}")
    if 0 < declared.end < size:
        other = sniff(read_at(file, declared.end, HEAD_BYTES))
        if other is not None:
            raise MediaCorrupt(
                f"{name}: another file ({other.name}) begins in it at byte {declared.end:,} of "
                f"{size:,}, as when files are joined; give each its own part, or encode them as one"
            )
    file.seek(0)
    if declared.end > size:
        raise MediaCorrupt(
            f"{name}: truncated: its {kind.name if kind else ''} container declares "
            f"{declared.end:,} bytes, the file has {size:,}; copy it again from its source"
        )
    return (declared.note,) if declared.note else ()


def _declared(file: BinaryIO, kind: Kind | None, size: int) -> Declared:
    walks = {
        _WAV: riff.wav,
        _AIFF: riff.aiff,
        _CAF: riff.caf,
        AVI: riff.avi,
        _OGG: ogg.pages,
        _FLAC: flac.frames,
        MP3: mp3.declared,
        FLV: flv.tags,
        _ADTS: adts.frames,
        ISO: iso.declared,
        MATROSKA: matroska.declared,
        MPEG_TS: _packets,
    }
    return walks[kind](file, size) if kind in walks else Declared(0)


def _packets(_: BinaryIO, size: int) -> Declared:
    """MPEG-TS: packets of one length, and nothing that tells how many there are."""
    return Declared(-(-size // _TS_PACKET) * _TS_PACKET, note=_NO_END)
