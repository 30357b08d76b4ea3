"""Find another file behind the end of a picture, as when files are joined with `cat`.

Pillow reads the first one and tells nothing of the others. Zeros and other bytes behind the end,
which all viewers ignore, are no fault: only another file's signature counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from omnitrace_core.media.containers.sniff import HEAD_BYTES, Kind, sniff

# Behind padding, the signature of MP4 begins with zeros of its own, three at most.
_NO_PADDING = re.compile(rb"[^\0\r\n]")
_MOST_ZEROS = 3
# No file is shorter; two signatures are two bytes, which junk may be.
_LEAST_BYTES = 16
_TABLE, _TABLE_BITS = 0x80, 0x07
# Boxes of AVIF files, and those of them that begin another file if there is a second.
_ONCE = (b"ftyp", b"moov")
_BOXES = (*_ONCE, b"meta", b"mdat", b"moof", b"free", b"skip", b"wide")


def file_behind(content: bytes, max_steps: int) -> tuple[Kind, int] | None:
    """The format of the file that begins behind the end of a picture, and where it begins.

    Of GIF, PNG, WebP and AVIF; None for others, if there is none, or if the end is not found in
    `max_steps` blocks of the file.
    """
    walks = {"GIF": _gif, "PNG": _png, "WebP": _webp, "AVIF": _avif}
    kind = sniff(content[:HEAD_BYTES])
    if kind is None or kind.name not in walks:
        return None
    for end in islice(walks[kind.name](content), max_steps):
        if end is not None and (found := _file_at(content, end)):
            return found
    return None


def _file_at(content: bytes, end: int) -> tuple[Kind, int] | None:
    """The file that begins at `end`, or behind padding there."""
    begin = _NO_PADDING.search(content, end)
    if begin is None:
        return None
    zeros = range(max(end, begin.start() - _MOST_ZEROS), begin.start() + 1)
    for at in sorted({end, *zeros}):
        kind = sniff(content[at : at + HEAD_BYTES])
        if kind is not None and len(content) - at >= _LEAST_BYTES:
            return kind, at
    return None


# Each walk takes one step per block, and tells where the file may end.


def _gif(content: bytes) -> Iterator[int | None]:
    size = len(content)
    at = 13 + _table(content[10]) if size > 13 else size
    while at < size:
        mark = content[at]
        if mark == ord(";"):
            yield at + 1
            return
        if mark == ord("!"):
            at += 2
        elif mark == ord(",") and at + 10 < size:
            at += 11 + _table(content[at + 9])
        else:
            # Readers look for the next block, as if the file went on.
            yield at
            at += 1
            continue
        while at < size and content[at]:
            yield None
            at += 1 + content[at]
        at += 1


def _table(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags & _TABLE_BITS) + 1 if flags & _TABLE else 0


def _png(content: bytes) -> Iterator[int | None]:
    at = 8
    while at + 8 <= len(content):
        kind = content[at + 4 : at + 8]
        at += 12 + int.from_bytes(content[at : at + 4], "big")
        if kind == b"IEND":
            yield at
            return
        yield None


def _webp(content: bytes) -> Iterator[int | None]:
    yield 8 + int.from_bytes(content[4:8], "little")


def _avif(content: bytes) -> Iterator[int | None]:
    seen: set[bytes] = set()
    at = 0
    while at + 8 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        if length == 1:
            length = int.from_bytes(content[at + 8 : at + 16], "big")
        if kind in seen and kind in _ONCE:
            break
        if length < 8 or at + length > len(content):
            if kind in _BOXES:  # without a length, or cut
                return
            break
        seen.add(kind)
        yield None
        at += length
    yield at
