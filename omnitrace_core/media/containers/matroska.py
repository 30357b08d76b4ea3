"""The elements of Matroska and WebM (RFC 8794, RFC 9559): do they fill the file?

FFmpeg looks for the next cluster where an element is damaged, and says nothing of what it left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, is_padding, read_at

MAGIC = b"\x1a\x45\xdf\xa3"
_DOC_TYPE, _DOC_TYPES = 0x4282, (b"matroska", b"webm")
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
# Elements in clusters, and in live recordings, whose clusters end where another element begins.
# What is damaged, or is another file, may look like elements of other ids.
_IN_CLUSTERS = {
    *(0x1A45DFA3, _SEGMENT, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770),
    *(0x1941A469, 0x1254C367, _CLUSTER, 0xE7, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0x5854, 0xEC, 0xBF),
}
_MAX_ELEMENTS = 10_000_000
_NO_LENGTH = "the file does not tell its length, so nobody knows whether it was cut"
# An element: id, where its body begins and ends. Where the end is unknown (live writers), inf.
_Element = tuple[int, int, float]


def names_itself(head: bytes) -> bool:
    """Whether the header that begins a file says that it is Matroska or WebM."""
    file = io.BytesIO(head)
    for _, body, end in _elements(file, 0, 1):
        types = [
            read_at(file, start, int(stop - start)).rstrip(b"\0")
            for element, start, stop in _elements(file, body, end)
            if element == _DOC_TYPE and end <= len(head)
        ]
        return bool(set(types) & set(_DOC_TYPES))
    return False


def declared(file: BinaryIO, size: int) -> Declared:
    """Follow the elements down to the blocks; a live recording ends with the file."""
    at, n_segments, note = 0, 0, ""
    open_until = cluster_end = 0.0  # of the segment and the cluster
    for element, body, end in _elements(file, 0, size):
        is_known = element in _IN_CLUSTERS or not (note or at < cluster_end)
        if not is_known or at < cluster_end < end or at < open_until < end:
            break
        cluster_end = end if element == _CLUSTER else cluster_end
        if element == _SEGMENT:
            n_segments, open_until = n_segments + 1, end
            note = _NO_LENGTH if end > 1 << 62 else note
        at = body if element in (_SEGMENT, _CLUSTER) else int(min(end, 1 << 62))
    if not n_segments:
        return Declared(size, "no media in it; copy it again from its source")
    if n_segments > 1:
        return Declared(size, f"{n_segments} files, one behind the other; join them as one file")
    end = size if note else int(open_until)
    if end > size:
        return Declared(end)
    if at < end or not is_padding(file, end, size):
        return Declared(at, f"damaged: no element at byte {at:,} of {size:,}; rewrite it", note)
    return Declared(end, note=note)


def _elements(file: BinaryIO, at: int, until: float) -> Iterator[_Element]:
    """All elements in [at, until), in the order of the file; segments and clusters are entered."""
    for _ in range(_MAX_ELEMENTS):
        head = read_at(file, at, 12) if at < until else b""
        n_id = _vint_length(head[:1])
        n_size = _vint_length(head[n_id : n_id + 1])
        if not n_id or n_id > 4 or not n_size or len(head) < n_id + n_size:
            return
        size = int.from_bytes(head[n_id : n_id + n_size], "big") & ((1 << 7 * n_size) - 1)
        body = at + n_id + n_size
        end = float("inf") if size == (1 << 7 * n_size) - 1 else body + size
        element = int.from_bytes(head[:n_id], "big")
        if end > 1 << 62 and element not in (_SEGMENT, _CLUSTER):
            return
        yield element, body, end
        at = body if element in (_SEGMENT, _CLUSTER) else int(end)


def _vint_length(first: bytes) -> int:
    """Bytes of a variable-length integer, by its first byte; 0 if that is not one."""
    return 9 - first[0].bit_length() if first and first[0] else 0
