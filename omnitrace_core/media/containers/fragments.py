"""Whether an MP4 file has fragments (ISO/IEC 14496-12, 8.8): its tracks then count otherwise."""

from __future__ import annotations

from typing import BinaryIO

from omnitrace_core.media.containers.declared import read_at

# More boxes than this stand before no fragment.
_MAX_BOXES = 10_000


def has_fragments(file: BinaryIO) -> bool:
    """Whether a box of a fragment (moof) is among the outermost boxes."""
    at = 0
    for _ in range(_MAX_BOXES):
        head = read_at(file, at, 16)
        if len(head) < 8 or head[4:8] == b"moof":
            return head[4:8] == b"moof"
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:], "big") if size == 1 else size
        if size < 8:
            return False
        at += size
    return False
