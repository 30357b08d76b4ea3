"""The elements of Matroska and WebM (RFC 8794, RFC 9559): sizes and times, nothing decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, is_padding, read_at

MAGIC = b"\x1a\x45\xdf\xa3"
_DOC_TYPE, _DOC_TYPES = 0x4282, (b"matroska", b"webm")
_SEGMENT, _INFO, _CLUSTER, _GROUP = 0x18538067, 0x1549A966, 0x1F43B675, 0xA0
_TRACKS, _ENTRY = 0x1654AE6B, 0xAE
_SCALE, _DURATION, _NUMBER, _TYPE = 0x2AD7B1, 0x4489, 0xD7, 0x83
_TIME, _BLOCKS = 0xE7, (0xA1, 0xA3)
# Read through rather than passed over, so that elements of unknown size (live writers) are no
# matter: what they hold follows either way.
_OPEN = (_SEGMENT, _INFO, _CLUSTER, _GROUP, _TRACKS, _ENTRY)
_VIDEO = 1
_DEFAULT_SCALE = 1_000_000
_MAX_ELEMENTS = 5_000_000
# Frames are stored in the order of decoding: the first that is shown is among the first.
_REORDERED = 16
_NO_LENGTH = "the file does not tell its length, so nobody knows whether it was cut"


@dataclass(frozen=True, slots=True)
class _Element:
    """`body` is a file offset; size None: unknown."""

    id: int
    body: int
    size: int | None


@dataclass(slots=True)
class _Header:
    """What precedes the media: nanoseconds per unit of time, units in all, video track numbers."""

    scale_ns: int = _DEFAULT_SCALE
    duration: float = 0.0
    video: tuple[int, ...] = ()


def names_itself(head: bytes) -> bool:
    """Whether the header that begins a file says that it is Matroska or WebM."""
    file = io.BytesIO(head)
    first = next(_elements(file), None)
    if first is None or first.size is None or first.body + first.size > len(head):
        return False
    return any(
        element.id == _DOC_TYPE
        and read_at(file, element.body, element.size or 0).rstrip(b"\0") in _DOC_TYPES
        for element in _elements(file, first.body)
        if element.body <= first.body + first.size
    )


def declared(file: BinaryIO, size: int) -> Declared:
    """The segment; a live recording, whose writer did not know its size, ends with the file."""
    for element in _elements(file):
        if element.id == _SEGMENT:
            if element.size is None:
                return Declared(size, note=_NO_LENGTH)
            end = element.body + element.size
            if end < size and not is_padding(file, end, size):
                return Declared(end, f"its segment ends at byte {end:,} of {size:,}; rewrite it")
            return Declared(end)
    return Declared(size, "no media in it; copy it again from its source")


def video_start_s(file: BinaryIO) -> tuple[int, float]:
    """The number of video tracks, and when the first frame of the first one is shown."""
    header = _Header()
    starts: list[int] = []
    for track, time in _blocks(file, header):
        if not header.video:
            break
        if track == header.video[0]:
            starts.append(time)
            if len(starts) == _REORDERED:
                break
    return len(header.video), min(starts, default=0) * header.scale_ns / 1e9


def end_s(file: BinaryIO) -> float:
    """Seconds of the file by its header; a live recording's by its last block."""
    header = _Header()
    latest = 0
    for _, time in _blocks(file, header):
        if header.duration:
            return header.duration * header.scale_ns / 1e9
        latest = max(latest, time)
    return latest * header.scale_ns / 1e9


def _blocks(file: BinaryIO, header: _Header) -> Iterator[tuple[int, int]]:
    """Track number and time of every block, in units of time; fills in the header on the way."""
    number, cluster = 0, 0
    for element in _elements(file):
        if element.id == _SCALE:
            header.scale_ns = _uint(file, element) or _DEFAULT_SCALE
        elif element.id == _DURATION:
            form = ">d" if element.size == 8 else ">f"
            value = read_at(file, element.body, struct.calcsize(form))
            if element.size == len(value):
                header.duration = struct.unpack(form, value)[0]
        elif element.id == _NUMBER:
            number = _uint(file, element)
        elif element.id == _TYPE and _uint(file, element) == _VIDEO:
            header.video += (number,)
        elif element.id == _TIME:
            cluster = _uint(file, element)
        elif element.id in _BLOCKS:
            head = read_at(file, element.body, 12)
            n = _vint_length(head[:1])
            if n and len(head) >= n + 2:
                (relative,) = struct.unpack(">h", head[n : n + 2])
                yield _vint(head[:n]), cluster + relative


def _elements(file: BinaryIO, at: int = 0) -> Iterator[_Element]:
    """All elements from an offset on, down to blocks, in the order of the file."""
    for _ in range(_MAX_ELEMENTS):
        head = read_at(file, at, 12)
        n_id = _vint_length(head[:1])
        n_size = _vint_length(head[n_id : n_id + 1])
        if not n_id or not n_size or len(head) < n_id + n_size:
            return
        size = _vint(head[n_id : n_id + n_size])
        unknown = size == (1 << 7 * n_size) - 1
        body = at + n_id + n_size
        found = _Element(int.from_bytes(head[:n_id], "big"), body, None if unknown else size)
        yield found
        if found.id in _OPEN:
            at = body
        elif unknown:
            return
        else:
            at = body + size


def _uint(file: BinaryIO, element: _Element) -> int:
    return int.from_bytes(read_at(file, element.body, min(element.size or 0, 8)), "big")


def _vint(data: bytes) -> int:
    """The value of a variable-length integer, its marker bit left out."""
    return int.from_bytes(data, "big") & ((1 << 7 * len(data)) - 1)


def _vint_length(first: bytes) -> int:
    """Bytes of a variable-length integer, by its first byte; 0 if that is not one."""
    return 9 - first[0].bit_length() if first and first[0] else 0
