"""The frames of MP3 files (ISO/IEC 11172-3 and 13818-3, layer III), and the tags around them.

An MP3 has no length: readers estimate it, or trust the Xing header that encoders put into the first
frame. Here every frame is followed. Files that were joined have tags and headers in the middle.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, is_padding, read_at

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
# Files are read in blocks that grow, so that many short pieces are not each read far ahead.
_FIRST_READ_BYTES = 1 << 13
_READ_BYTES = 1 << 20
# The longest frame: 320 kbit/s at 32 kHz, and one byte of padding.
_FRAME_BYTES = 1441
# Sync, version, layer and sample rate are the same in all frames of a file.
_SAME = 0xFFFE_0C00
_MOST_PADDING = 1 << 20
# What may follow the last tag, in files of careless taggers.
_MOST_REST = 1 << 10
# Joined files and tags, of which each costs time. Ten thousand joined files are not to be expected.
_MOST_PIECES = 10_000
# The longest lyrics of a Lyrics3 tag, and its end marks.
_MOST_LYRICS = 1_000_000
_LYRICS_ENDS = (b"LYRICS200", b"LYRICSEND")
# Samples by which every decoder is late.
_DECODER_DELAY = 529
_REWRITE = "encode it again"
_ENCODERS = (b"LAME", b"Lavf", b"Lavc")


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames of one recording, [start, end) in the file.

    n_before: samples before the sound, which the encoder added. n_samples: of the sound.
    """

    start: int
    end: int
    n_frames: int
    rate: int
    n_before: int
    n_samples: int


@dataclass(frozen=True, slots=True)
class _Header:
    """What a Xing header says: frames (0 if it does not say), samples added before and after."""

    n_frames: int = 0
    n_before: int = 0
    n_added: int = 0


def declared(file: BinaryIO, size: int) -> Declared:
    """Follow all frames, and compare their number with the headers'."""
    return pieces(file, size)[1]


def pieces(file: BinaryIO, size: int) -> tuple[list[Piece], Declared]:
    """The recordings in a file, one unless files were joined, and what is wrong with the file."""
    at, n_tags = _skip_tags(file, 0, size, _MOST_PIECES)
    first = int.from_bytes(read_at(file, at, 4), "big")
    found: list[Piece] = []
    if not _n_bytes(first):
        return found, Declared(size, "no MP3 frames where they should begin; encode it again")
    while True:
        header = _header(read_at(file, at, 256))
        start = at if header is None else at + _n_bytes(int.from_bytes(read_at(file, at, 4), "big"))
        end, n_frames = _walk(file, start, first)
        if end > size:
            return found, Declared(end)
        found.append(_piece(start, end, n_frames, first, header or _Header()))
        # Some encoders count the header itself.
        if header and header.n_frames and header.n_frames not in (n_frames, n_frames + 1):
            what = "truncated" if header.n_frames > n_frames else "its header is wrong"
            fault = f"{what}: it declares {header.n_frames:,} frames, there are {n_frames:,}"
            return found, Declared(end, f"{fault}; encode it again")
        at, n_more = _skip_tags(file, end, size, _MOST_PIECES - n_tags)
        n_tags += n_more
        if n_tags >= _MOST_PIECES or len(found) >= _MOST_PIECES:
            return found, Declared(end, f"more than {_MOST_PIECES:,} tags or files; {_REWRITE}")
        if at >= size:
            return found, Declared(at)
        if _is_frame(read_at(file, at, 4), first) and at > start:
            continue
        if at > end and size - at <= _MOST_REST:
            return found, Declared(at)
        fault = f"damaged or truncated: no frame at byte {at:,} of {size:,}"
        return found, Declared(end, f"{fault}; copy it from its source")


def frame_bytes(file: BinaryIO, piece: Piece) -> Iterator[bytes]:
    """The frames of a piece."""
    at, start, block, n_read = piece.start, piece.start, b"", _FIRST_READ_BYTES
    for _ in range(piece.n_frames):
        if at + _FRAME_BYTES > start + len(block):
            start, block, n_read = at, read_at(file, at, n_read), min(2 * n_read, _READ_BYTES)
        end = at + _n_bytes(int.from_bytes(block[at - start : at - start + 4], "big"))
        yield block[at - start : end - start]
        at = end


def _piece(start: int, end: int, n_frames: int, first: int, header: _Header) -> Piece:
    n_samples = n_frames * (1152 if first >> 19 & 3 == 3 else 576)
    n_kept = min(n_samples - header.n_added, n_samples - header.n_before)
    rate = _RATES[first >> 19 & 3][first >> 10 & 3]
    return Piece(start, end, n_frames, rate, header.n_before, max(n_kept, 0))


def _header(frame: bytes) -> _Header | None:
    """The header that a frame is, instead of sound; None if it is sound."""
    head = int.from_bytes(frame[:4], "big")
    side = 4 + _side_bytes(head)
    if not _n_bytes(head) or frame[4:side].strip(b"\0"):
        return None
    # Fraunhofer's header stands at another place; its number of frames is not used.
    if frame[36:40] == b"VBRI":
        return _Header()
    if frame[side : side + 4] not in (b"Xing", b"Info"):
        return None
    (flags,) = struct.unpack_from(">I", frame, side + 4)
    n_frames = struct.unpack_from(">I", frame, side + 8)[0] if flags & 1 else 0
    encoder = side + 8 + sum(n for bit, n in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    if frame[encoder : encoder + 4] not in _ENCODERS:
        return _Header(n_frames)
    delays = int.from_bytes(frame[encoder + 21 : encoder + 24], "big")
    before, after = delays >> 12, delays & 0xFFF
    return _Header(n_frames, before + _DECODER_DELAY, before + after)


def _walk(file: BinaryIO, at: int, first: int) -> tuple[int, int]:
    """Where the last of the frames from `at` on ends, and how many there are.

    It ends before a header, too: that of another file.
    """
    n_frames, start, block, n_read = 0, at, b"", _FIRST_READ_BYTES
    side = 4 + _side_bytes(first)
    while True:
        if at + 64 > start + len(block):
            start, block, n_read = at, read_at(file, at, n_read), min(2 * n_read, _READ_BYTES)
        frame = at - start
        n_bytes = _n_bytes(int.from_bytes(block[frame : frame + 4], "big"))
        if not n_bytes or not _is_frame(block[frame : frame + 4], first):
            return at, n_frames
        if block[frame + side : frame + side + 4] in (b"Xing", b"Info") and _header(
            read_at(file, at, 256)
        ):
            return at, n_frames
        at, n_frames = at + n_bytes, n_frames + 1


def _is_frame(head: bytes, first: int) -> bool:
    """Whether four bytes begin a frame like the first one."""
    found = int.from_bytes(head, "big")
    return (found ^ first) & _SAME == 0 and _n_bytes(found) > 0


def _n_bytes(head: int) -> int:
    """Length of a frame by its header of four bytes; 0 if it is none of layer III."""
    version, kbits, rate = head >> 19 & 3, head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or head >> 17 & 3 != 1 or version == 1 or kbits in (0, 15) or rate == 3:
        return 0
    per_second, hertz = (_KBITS_1 if version == 3 else _KBITS_2)[kbits], _RATES[version][rate]
    return (144_000 if version == 3 else 72_000) * per_second // hertz + (head >> 9 & 1)


def _side_bytes(head: int) -> int:
    """Bytes between a frame's header and where a Xing header stands."""
    is_mono = head >> 6 & 3 == 3
    if head >> 19 & 3 == 3:
        return 17 if is_mono else 32
    return 9 if is_mono else 17


def _skip_tags(file: BinaryIO, at: int, size: int, most: int) -> tuple[int, int]:
    """Where the next frame should be, behind tags and their padding; how many tags, `most` or less.

    Without tags, no padding is expected between a frame and what follows it.
    """
    begin, n_tags = at, 0
    while at < size and n_tags < most and (n_bytes := _tag_bytes(file, at, size)):
        at, n_tags = at + n_bytes, n_tags + 1
    if is_padding(file, at, size):
        return max(at, size), n_tags
    if begin and at == begin:
        return at, n_tags
    return at + _n_zeros(file, at), n_tags


def _n_zeros(file: BinaryIO, at: int) -> int:
    """How many zeros stand at an offset, up to `_MOST_PADDING`."""
    n_zeros, n_read = 0, _FIRST_READ_BYTES
    while n_zeros < _MOST_PADDING:
        block = read_at(file, at + n_zeros, min(n_read, _MOST_PADDING - n_zeros))
        n = len(block) - len(block.lstrip(b"\0"))
        n_zeros, n_read = n_zeros + n, 2 * n_read
        if n < len(block) or not block:
            break
    return n_zeros


def _tag_bytes(file: BinaryIO, at: int, size: int) -> int:
    """Length of the tag at an offset; 0 if there is none."""
    head = read_at(file, at, 32)
    if head[:3] == b"ID3" and len(head) >= 10:
        length = 0
        for byte in head[6:10]:
            length = length << 7 | byte & 0x7F
        return 10 + length + (10 if head[5] & 0x10 else 0)
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return 32 + int.from_bytes(head[12:16], "little")
    if head[:3] == b"TAG":
        return min(128, size - at)
    if head[:11] == b"LYRICSBEGIN":
        return _lyrics_bytes(file, at, size)
    return 0


def _lyrics_bytes(file: BinaryIO, at: int, size: int) -> int:
    """Length of a Lyrics3 tag up to its end mark; all the rest without one."""
    lyrics, n_read = b"", _FIRST_READ_BYTES
    while len(lyrics) < _MOST_LYRICS:
        searched = max(len(lyrics) - 8, 0)
        block = read_at(file, at + len(lyrics), n_read)
        lyrics, n_read = lyrics + block, 2 * n_read
        ends = [lyrics.find(mark, searched) + 9 for mark in _LYRICS_ENDS]
        if max(ends) > 8:
            return min(end for end in ends if end > 8)
        if not block:
            break
    return size - at
