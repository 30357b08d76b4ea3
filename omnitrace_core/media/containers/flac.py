"""The header and the last frame of a FLAC file (RFC 9639): do they agree on its length?"""

from __future__ import annotations

import re
from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, read_at

_FIRST_FRAME = 42
# Room for the last frame, whatever it holds, and tags behind it.
_TAIL_BYTES = 4 << 20
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_HEADER_BYTES = 16
# The mark that begins a file, and the head of its first block.
_MARK = b"fLaC\0\0\0\x22"


def frames(file: BinaryIO, size: int) -> Declared:
    """Compare the number of samples in the header with the last frame.

    libsndfile would believe the header, and stop there.
    """
    head = read_at(file, 0, _FIRST_FRAME)
    if len(head) < _FIRST_FRAME or head[4] & 0x7F != 0:
        return Declared(max(size, _FIRST_FRAME), "" if size < _FIRST_FRAME else "no STREAMINFO")
    block = int.from_bytes(head[8:10], "big")
    declared = int.from_bytes(head[21:26], "big") & (1 << 36) - 1
    tail = read_at(file, max(_FIRST_FRAME, size - _TAIL_BYTES), _TAIL_BYTES)
    ends = _ends(tail, block)
    if not declared and ends:
        return Declared(size, "its header does not declare its length; encode it again")
    if declared and declared not in ends:
        return Declared(
            size,
            f"truncated, or its header is wrong: it declares {declared:,} samples, and no frame at "
            "the end is the last of them; copy it again from its source",
        )
    if declared and not _is_last(tail[ends[declared] :]):
        fault = (
            "truncated or damaged in its last frame, or another file follows it; encode it again"
        )
        return Declared(size, fault)
    return Declared(size, "files that were joined; encode them as one" if _repeats(file) else "")


def _repeats(file: BinaryIO) -> bool:
    """Whether another FLAC file begins in the file."""
    at, block = len(_MARK), b""
    while len(block := read_at(file, at, _TAIL_BYTES)) >= len(_MARK):
        if _MARK in block:
            return True
        at += len(block) - len(_MARK) + 1
    return False


def _is_last(data: bytes) -> bool:
    """Whether nothing but tags and zeros follow the frame that begins some bytes (9.3)."""
    ends = [len(data)]
    if data[-128:-125] == b"TAG":
        ends.append(len(data) - 128)
    if data[ends[-1] - 32 :][:8] == b"APETAGEX":
        footer = data[ends[-1] - 32 : ends[-1]]
        has_header = footer[23] >> 7
        ends.append(ends[-1] - int.from_bytes(footer[12:16], "little") - 32 * has_header)
    return any(end > 0 and not _crc16(data[:end]) for end in ends)


def _ends(data: bytes, block: int) -> dict[int, int]:
    """The numbers of samples up to and with each frame of some bytes, with the frames' offsets.

    block: samples in a frame.
    """
    found = {
        _end(data[match.start() : match.start() + _HEADER_BYTES], block): match.start()
        for match in _SYNC.finditer(data)
    }
    found.pop(0, None)
    return found


def _end(head: bytes, block: int) -> int:
    """Samples up to the end of a frame, by its header; 0 if it is none (9.1)."""
    code, rate = head[2] >> 4 if len(head) > 5 else 0, head[2] & 0x0F if len(head) > 5 else 0
    n_number = max(1, 8 - (head[4] ^ 0xFF).bit_length()) if code else 0
    n_size = {6: 1, 7: 2}.get(code, 0)
    at = 4 + n_number
    crc = at + n_size + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if not code or n_number > 7 or crc >= len(head) or _crc8(head[: crc + 1]):
        return 0
    number = head[4] & (0xFF >> n_number + (n_number > 1)) if n_number < 7 else 0
    for byte in head[5:at]:
        number = number << 6 | byte & 0x3F
    if n_size:
        n_samples = int.from_bytes(head[at : at + n_size], "big") + 1
    elif code == 1:
        n_samples = 192
    else:
        n_samples = 576 << code - 2 if code < 6 else 256 << code - 8
    # Frames are numbered, or say at which sample they begin.
    return number * (1 if head[1] & 1 else block) + n_samples


def _crc16(data: bytes) -> int:
    """Remainder by x^16 + x^15 + x^2 + 1: 0 for bytes that end in their own checksum."""
    crc = 0
    for byte in data:
        crc = crc << 8 & 0xFFFF ^ _CRC16[crc >> 8 ^ byte]
    return crc


def _crc16_of(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = crc << 1 & 0xFFFF ^ (0x8005 if crc & 0x8000 else 0)
    return crc


_CRC16 = [_crc16_of(byte) for byte in range(256)]


def _crc8(data: bytes) -> int:
    """Remainder by x^8 + x^2 + x + 1: 0 for bytes that end in their own checksum."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 & 0xFF ^ (0x07 if crc & 0x80 else 0)
    return crc
