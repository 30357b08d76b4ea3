"""Files made of chunks: WAV, RF64, AVI (little-endian), AIFF (big-endian) and CAF.

Each chunk is a name of four characters, a length, and that many bytes. A file must be chunks to its
end, so a cut file is found, and a file whose header declares less than there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from omnitrace_core.media.containers.declared import Declared, is_padding, read_at

# A file with more chunks than this is not one that anybody wrote on purpose.
_MAX_CHUNKS = 1_000_000
# Writers to a pipe cannot know the length and put one of these (all ones, sox's and ffmpeg's).
_UNKNOWN_SIZE = 0x7FFF_F000
_UNKNOWN_CAF_SIZE = (1 << 64) - 1
_FILES = (b"RIFF", b"RF64", b"BW64", b"FORM", b"caff", b"fLaC", b"OggS")
_NO_LENGTH = "the header does not tell the length, so nobody knows whether the file was cut"


@dataclass(frozen=True, slots=True)
class _Chunk:
    """`body` and `end` are file offsets, `end` as declared; `next`: where another may begin."""

    id: bytes
    body: int
    end: int
    next: int


def wav(file: BinaryIO, size: int) -> Declared:
    """A WAV file, or one of more than 4 GiB (RF64, EBU Tech 3306)."""
    long_size = 0
    for chunk in _chunks(file, 12, size, "little"):
        if chunk.id == b"ds64":
            long_size = int.from_bytes(read_at(file, chunk.body + 8, 8), "little")
        if chunk.id != b"data" or chunk.end - chunk.body < _UNKNOWN_SIZE:
            continue
        if long_size:
            end = chunk.body + long_size
            return Declared(end + 1 if end % 2 and end < size else end)
        if chunk.end > size:
            return Declared(size, note=_NO_LENGTH)
    return _to_the_end(file, 12, size, "little")


def aiff(file: BinaryIO, size: int) -> Declared:
    """AIFF and AIFF-C."""
    return _to_the_end(file, 12, size, "big")


def caf(file: BinaryIO, size: int) -> Declared:
    """Apple's Core Audio Format: lengths of eight bytes, no padding."""
    for chunk in _chunks(file, 8, size, "big", 8):
        if chunk.id == b"data" and chunk.end - chunk.body == _UNKNOWN_CAF_SIZE:
            return Declared(size, note=_NO_LENGTH)
    return _to_the_end(file, 8, size, "big", 8)


def avi(file: BinaryIO, size: int) -> Declared:
    """An AVI file: one RIFF chunk, and more of them in files of more than 1 GiB (OpenDML)."""
    if int.from_bytes(read_at(file, 4, 4), "little") in (0, 0xFFFF_FFFF):
        return Declared(size, "its header does not declare its length; rewrite it as MP4")
    return _to_the_end(file, 0, size, "little")


def _to_the_end(
    file: BinaryIO, at: int, size: int, order: Literal["little", "big"], n_length: int = 4
) -> Declared:
    first = at
    for chunk in _chunks(file, at, size, order, n_length):
        # Another file; a long AVI file has further parts.
        if at > first and chunk.id in _FILES and read_at(file, chunk.body, 4) != b"AVIX":
            break
        at = chunk.end if chunk.end > size else min(chunk.next, size)
    if not is_padding(file, at, size):
        return Declared(
            at,
            f"its header declares {at:,} of {size:,} bytes and the rest is not part of it; "
            "encode it again",
        )
    return Declared(at)


def _chunks(
    file: BinaryIO, at: int, end: int, order: Literal["little", "big"], n_length: int = 4
) -> Iterator[_Chunk]:
    """Chunks that begin in [at, end), up to the first bytes that are none."""
    for _ in range(_MAX_CHUNKS):
        head = read_at(file, at, 4 + n_length) if at + 4 + n_length <= end else b""
        if len(head) < 4 + n_length or not all(0x20 <= byte < 0x7F for byte in head[:4]):
            return
        body = at + len(head)
        length = int.from_bytes(head[4:], order)
        at = body + length + (length % 2 if n_length == 4 else 0)
        yield _Chunk(head[:4], body, body + length, at)
