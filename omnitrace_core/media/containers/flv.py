"""The tags of an FLV file (Adobe's FLV specification 10.1, annex E)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, read_at

# A file with more tags than this is not one that anybody wrote on purpose.
_MAX_TAGS = 10_000_000
_FIRST_TAG = 9 + 4
_VIDEO, _SCRIPT, _AVC = 9, 18, 7
_CUT = "truncated: {}; copy it again from its source"
# The header declares the end of the last frame, tags the beginning.
_LAST_FRAME_S = 0.5


def tags(file: BinaryIO, size: int) -> Declared:
    """Follow the tags to the end of the file, and compare it with the declared length."""
    at, last_ms, declared = _FIRST_TAG, 0, (0.0, 0.0)
    for at, kind, time_ms, head in _tags(file):
        last_ms = max(last_ms, time_ms)
        if kind == _SCRIPT and not any(declared):
            n_bytes = min(int.from_bytes(head[1:4], "big"), 1 << 16)
            meta = read_at(file, at - 4 - int.from_bytes(head[1:4], "big"), n_bytes)
            declared = _number(meta, b"filesize"), _number(meta, b"duration")
        if at >= size:
            break
    file_size, duration_s = declared
    if at != size:
        return Declared(max(at, size), _CUT.format("its tags do not end where the file does"))
    if file_size > size:
        return Declared(size, _CUT.format(f"{size:,} of {file_size:,.0f} bytes"))
    if duration_s - last_ms / 1000 > _LAST_FRAME_S:
        return Declared(size, _CUT.format(f"{last_ms / 1000:.1f} of {duration_s:.1f} s"))
    if not (file_size > 0 or duration_s > 0):
        return Declared(size, "its header does not declare its length; rewrite it as MP4")
    return Declared(size)


def video_start_s(file: BinaryIO) -> float | None:
    """The first coded picture's time; None without one."""
    for _, kind, coded_at_ms, head in _tags(file):
        is_avc = head[11] & 0x0F == _AVC
        # Of AVC, type 0 is the decoder's configuration; others say how much later they are shown.
        if kind == _VIDEO and not (is_avc and head[12] == 0):
            later_ms = int.from_bytes(head[13:16], "big", signed=True) if is_avc else 0
            return (coded_at_ms + later_ms) / 1000
    return None


def _tags(file: BinaryIO) -> Iterator[tuple[int, int, int, bytes]]:
    """Where each tag ends, its kind, its time in ms, and its first 16 bytes."""
    at = _FIRST_TAG
    for _ in range(_MAX_TAGS):
        head = read_at(file, at, 16)
        if len(head) < 15:
            return
        at += 11 + int.from_bytes(head[1:4], "big") + 4
        time_ms = int.from_bytes(head[4:7], "big") + (head[7] << 24)
        yield at, head[0] & 0x1F, time_ms, head.ljust(16, b"\0")


def _number(meta: bytes, name: bytes) -> float:
    """A number of onMetaData; 0 if it is not there."""
    at = meta.find(struct.pack(">H", len(name)) + name + b"\0")
    value = meta[at + 3 + len(name) : at + 11 + len(name)]
    return float(struct.unpack(">d", value)[0]) if at >= 0 and len(value) == 8 else 0.0
