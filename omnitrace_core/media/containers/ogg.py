"""The pages of an OGG file (RFC 3533): one stream, from its first page to its last."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, read_at

_HEADER_BYTES = 27
_FIRST, _LAST = 0x02, 0x04
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ONES = 0xFFFF_FFFF


def pages(file: BinaryIO, size: int) -> Declared:
    """Follow the pages, and check them.

    libsndfile would stop at the end of the first of several streams, and at damage, as if the
    sound ended there.
    """
    at, n_streams, flags = 0, 0, 0
    while at < size:
        head = read_at(file, at, _HEADER_BYTES + 255)
        if head[:4] != b"OggS"[: len(head)]:
            return Declared(at, f"damaged: no page at byte {at:,}; copy it again from its source")
        n_segments = head[26] if len(head) >= _HEADER_BYTES else 0
        lacing = head[_HEADER_BYTES : _HEADER_BYTES + n_segments]
        if len(head) < _HEADER_BYTES or len(lacing) < n_segments:
            return Declared(at + _HEADER_BYTES + n_segments)
        n_bytes = _HEADER_BYTES + n_segments + sum(lacing)
        page = read_at(file, at, n_bytes)
        if len(page) == n_bytes and _checksum(page[:22] + bytes(4) + page[26:]) != page[22:26]:
            return Declared(at, f"damaged: the page at byte {at:,} does not fit its checksum")
        flags = head[5]
        n_streams += bool(flags & _FIRST)
        at += n_bytes
    if at <= size and n_streams > 1:
        return Declared(
            at, f"{n_streams} streams, one after or beside the other; encode it again as one"
        )
    if at <= size and not flags & _LAST:
        return Declared(
            at, "truncated: its last page is not marked as the last; copy it again from its source"
        )
    return Declared(at)


def _checksum(page: bytes) -> bytes:
    """The checksum of a page, its own field zero: CRC-32 with the highest bit first, no inversion.

    That of zlib takes the lowest bit first, and inverts: so bits are reversed before and after.
    """
    crc = zlib.crc32(page.translate(_REVERSED), _ONES) ^ _ONES
    return crc.to_bytes(4, "big").translate(_REVERSED)
