"""The frames of MP3 files (ISO/IEC 11172-3 and 13818-3, layer III), and the tags around them.

An MP3 has no length: readers estimate it, or trust the Xing header that encoders put into the first
frame. Here every frame is followed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, is_padding, read_at

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_READ_BYTES = 1 << 20
# Sync, version, layer and sample rate are the same in all frames of a file.
_SAME = 0xFFFE_0C00
_MOST_PADDING = 1 << 20
# What may follow the frames, and how large it may be.
_TAGS = ((b"TAG", 1 << 10), (b"APETAGEX", 16 << 20), (b"LYRICSBEGIN", 1 << 20), (b"ID3", 16 << 20))


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames with sound: their place in the file, their number, and what a frame is like.

    is_told: the file itself has a Xing header with their number.
    """

    start: int
    end: int
    n_frames: int
    first: int
    is_told: bool

    @property
    def rate(self) -> int:
        """Samples per second."""
        return _RATES[self.first >> 19 & 3][self.first >> 10 & 3]

    @property
    def n_samples(self) -> int:
        """Samples in all."""
        return self.n_frames * (1152 if self.first >> 19 & 3 == 3 else 576)

    def header(self) -> bytes:
        """A Xing header, for readers that would estimate the length: a separate frame."""
        first = self.first & 0xFFFF_0DFF | 0xE000 | 0x1_0000
        info = struct.pack(">4sIII", b"Xing", 3, self.n_frames, self.end - self.start)
        frame = struct.pack(">I", first) + bytes(_side_bytes(first)) + info
        return frame.ljust(_n_bytes(first), b"\0")


def frames(file: BinaryIO, size: int) -> tuple[Frames, Declared]:
    """Follow all frames, and compare their number with the header's, if there is one."""
    at = _skip_tags(file)
    first = int.from_bytes(read_at(file, at, 4), "big")
    declared = _declared_frames(read_at(file, at, 256), first) if _n_bytes(first) else None
    if declared is not None:
        at += _n_bytes(first)
    start, end, n_frames = at, *_walk(file, at, first)
    found = Frames(start, min(end, size), n_frames, first, bool(declared))
    if not _n_bytes(first):
        return found, Declared(size, "no MP3 frames where they should begin; encode it again")
    if end > size:
        return found, Declared(end)
    if fault := _tail_fault(file, end, size):
        return found, Declared(end, fault)
    # Some encoders count the header itself.
    if declared and declared not in (n_frames, n_frames + 1):
        what = "truncated" if declared > n_frames else "its header is wrong"
        return found, Declared(
            end, f"{what}: it declares {declared:,} frames, there are {n_frames:,}; encode it again"
        )
    return found, Declared(end)


def _declared_frames(frame: bytes, first: int) -> int | None:
    """Frames by the header in a first frame: 0 if it does not say, None if it is not a header."""
    side = 4 + _side_bytes(first)
    if frame[side : side + 4] in (b"Xing", b"Info"):
        flags, n_frames = struct.unpack_from(">II", frame, side + 4)
        return n_frames if flags & 1 else 0
    # Fraunhofer's header is not read by libsndfile: the frame is replaced.
    return 0 if frame[36:40] == b"VBRI" else None


def _walk(file: BinaryIO, at: int, first: int) -> tuple[int, int]:
    """Where the last of the frames from `at` on ends, and how many there are."""
    n_frames, start, block = 0, at, b""
    while True:
        if at + 4 > start + len(block):
            start, block = at, read_at(file, at, _READ_BYTES)
        head = int.from_bytes(block[at - start : at - start + 4], "big")
        n_bytes = _n_bytes(head) if (head ^ first) & _SAME == 0 else 0
        if not n_bytes:
            return at, n_frames
        at, n_frames = at + n_bytes, n_frames + 1


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


def _skip_tags(file: BinaryIO) -> int:
    """Where the frames begin: behind ID3v2 tags and zeros."""
    at = 0
    while (head := read_at(file, at, 10))[:3] == b"ID3" and len(head) == 10:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + (10 if head[5] & 0x10 else 0)
    padding = read_at(file, at, _MOST_PADDING)
    return at + len(padding) - len(padding.lstrip(b"\0"))


def _tail_fault(file: BinaryIO, end: int, size: int) -> str:
    """What is wrong with the bytes behind the last frame."""
    rest = read_at(file, end, len(_TAGS[2][0]))
    is_tag = any(rest.startswith(tag) and size - end <= most for tag, most in _TAGS)
    if is_tag or is_padding(file, end, size):
        return ""
    return f"damaged or truncated: no frame at byte {end:,} of {size:,}; copy it from its source"
