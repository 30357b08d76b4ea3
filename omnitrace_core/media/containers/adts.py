"""AAC without a container: frames, each with its header (ISO/IEC 13818-7, 6.2)."""

from __future__ import annotations

from typing import BinaryIO

from omnitrace_core.media.containers.declared import Declared, read_at

_N_RATES = 13
_HEADER_BYTES = 7
_READ_BYTES = 1 << 20
_TAGS = (b"TAG", b"APETAGEX", b"ID3")
_MOST_TAGS = 1 << 20
# With so many FFmpeg ranks AAC above the text formats that may hide in its first frame.
_LEAST_FRAMES = 3


def frames(file: BinaryIO, size: int) -> Declared:
    """Follow the frames to the end of the file, or to tags."""
    end, n_frames = _walk(file)
    rest = read_at(file, end, len(_TAGS[1]))
    if end < size and not (rest.startswith(_TAGS) and size - end <= _MOST_TAGS):
        return Declared(end, f"damaged: no AAC frame at byte {end:,} of {size:,}; encode it again")
    if n_frames < _LEAST_FRAMES:
        return Declared(end, f"{n_frames} AAC frames are too few to be sure; rewrite it as M4A")
    return Declared(end)


def _walk(file: BinaryIO) -> tuple[int, int]:
    """Frames up to the first bytes that are none: where they end, and their number."""
    at, n_frames = 0, 0
    start, block = 0, b""
    while True:
        if at + _HEADER_BYTES > start + len(block):
            file.seek(at)
            start, block = at, file.read(_READ_BYTES)
        head = block[at - start : at - start + _HEADER_BYTES]
        if len(head) < _HEADER_BYTES:
            # A header that was cut counts as missing bytes; tags do not.
            cut = len(head) >= 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
            return (at + _HEADER_BYTES if cut else at), n_frames
        rate = head[2] >> 2 & 0x0F
        n_bytes = (head[3] & 0x03) << 11 | head[4] << 3 | head[5] >> 5
        is_frame = head[0] == 0xFF and head[1] & 0xF6 == 0xF0
        if not is_frame or rate >= _N_RATES or n_bytes < _HEADER_BYTES:
            return at, n_frames
        at, n_frames = at + n_bytes, n_frames + 1
