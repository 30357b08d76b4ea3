"""The pages of an OGG file (RFC 3533): one stream, from its first page to its last."""

from __future__ import annotations

from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, read_at

_HEADER_BYTES = 27
_FIRST, _LAST = 0x02, 0x04


def pages(file: BinaryIO, size: int) -> Declared:
    """Follow the pages; libsndfile would stop at the end of the first of several streams."""
    at, n_streams, flags = 0, 0, 0
    while at < size:
        head = read_at(file, at, _HEADER_BYTES + 255)
        if head[:4] != b"OggS"[: len(head)]:
            return Declared(at, f"damaged: no page at byte {at:,}; copy it again from its source")
        n_segments = head[26] if len(head) >= _HEADER_BYTES else 0
        lacing = head[_HEADER_BYTES : _HEADER_BYTES + n_segments]
        if len(head) < _HEADER_BYTES or len(lacing) < n_segments:
            return Declared(at + _HEADER_BYTES + n_segments)
        flags = head[5]
        n_streams += bool(flags & _FIRST)
        at += _HEADER_BYTES + n_segments + sum(lacing)
    if at <= size and n_streams > 1:
        return Declared(
            at, f"{n_streams} streams, one after or beside the other; encode it again as one"
        )
    if at <= size and not flags & _LAST:
        return Declared(
            at, "truncated: its last page is not marked as the last; copy it again from its source"
        )
    return Declared(at)
