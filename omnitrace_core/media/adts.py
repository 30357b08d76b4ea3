"""AAC without a container: frames, each with a header of its own (ISO/IEC 13818-7, 6.2)."""

from __future__ import annotations

from typing import BinaryIO

_RATES = (96, 88.2, 64, 48, 44.1, 32, 24, 22.05, 16, 12, 11.025, 8, 7.35)
_BLOCK_SAMPLES = 1024
_HEADER_BYTES = 7
_READ_BYTES = 1 << 20


def length(file: BinaryIO) -> tuple[int, float]:
    """Where the last frame ends by its header, in bytes, and the seconds of all frames.

    Frames are followed to the end of the file, or to the first bytes that are none (tags).
    """
    at, duration_s = 0, 0.0
    start, block = 0, b""
    while True:
        if at + _HEADER_BYTES > start + len(block):
            file.seek(at)
            start, block = at, file.read(_READ_BYTES)
        head = block[at - start : at - start + _HEADER_BYTES]
        if len(head) < _HEADER_BYTES:
            # A header that was cut counts as missing bytes; tags do not.
            cut = len(head) >= 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
            return (at + _HEADER_BYTES if cut else at), duration_s
        rate = head[2] >> 2 & 0x0F
        n_bytes = (head[3] & 0x03) << 11 | head[4] << 3 | head[5] >> 5
        is_frame = head[0] == 0xFF and head[1] & 0xF6 == 0xF0
        if not is_frame or rate >= len(_RATES) or n_bytes < _HEADER_BYTES:
            return at, duration_s
        n_blocks = 1 + (head[6] & 0x03)
        duration_s += n_blocks * _BLOCK_SAMPLES / (1000 * _RATES[rate])
        at += n_bytes
