"""The tags of an FLV file (Adobe's FLV specification 10.1, annex E): do they fill the file?"""

from __future__ import annotations

import struct
from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, read_at

_FIRST_TAG = 9 + 4
_SCRIPT_BYTES = 1 << 16
# The header declares the end of the last frame, tags the beginning.
_LAST_FRAME_S = 0.5


def tags(file: BinaryIO, size: int) -> Declared:
    """Follow the tags to the end of the file, and compare it with the declared length."""
    at, last_ms = _FIRST_TAG, 0
    while at < size and len(head := read_at(file, at, 11)) == 11:
        last_ms = max(last_ms, int.from_bytes(head[4:7], "big") + (head[7] << 24))
        at += 11 + int.from_bytes(head[1:4], "big") + 4
    script = read_at(file, _FIRST_TAG, _SCRIPT_BYTES)
    n_bytes, duration_s = _number(script, b"filesize"), _number(script, b"duration")
    if at != size or n_bytes > size or duration_s - last_ms / 1000 > _LAST_FRAME_S:
        return Declared(
            size,
            f"truncated or damaged: its tags end at byte {at:,} and {last_ms / 1000:.1f} s, the "
            f"file has {size:,} bytes and declares {n_bytes:,.0f} and {duration_s:.1f} s; copy it "
            "again from its source",
        )
    if not n_bytes and not duration_s:
        return Declared(size, "its header does not declare its length; rewrite it as MP4")
    return Declared(size)


def _number(meta: bytes, name: bytes) -> float:
    """A number of onMetaData; 0 if it is not there."""
    at = meta.find(struct.pack(">H", len(name)) + name + b"\0")
    value = meta[at + 3 + len(name) : at + 11 + len(name)]
    return float(struct.unpack(">d", value)[0]) if at >= 0 and len(value) == 8 else 0.0
