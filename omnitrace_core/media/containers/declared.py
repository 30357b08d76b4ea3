"""What a container declares about its bytes; read at the places that it declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

# No file is larger; offsets beyond it come from headers that lie.
_MOST_BYTES = 1 << 42
# Zeros may be silence; more of them than this are not counted as padding.
_MOST_PADDING = 1 << 12


@dataclass(frozen=True, slots=True)
class Declared:
    """What the walk through a file found.

    end: where the last piece ends, by its header; beyond the file, the file was cut.
    fault: what else is wrong with it, in words that follow the file's name; empty if nothing is.
    note: what could not be checked.
    """

    end: int
    fault: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a track that is shown, in seconds of the file's clock. end_s None: to its end."""

    begin_s: float | None = None
    end_s: float | None = None


def read_at(file: BinaryIO, at: int, n: int) -> bytes:
    """Up to `n` bytes from an offset on; none where no file reaches."""
    if n <= 0 or not 0 <= at < _MOST_BYTES:
        return b""
    file.seek(at)
    return file.read(n)


def is_padding(file: BinaryIO, at: int, size: int) -> bool:
    """Whether nothing but zeros, and few of them, stand between an offset and the file's end."""
    return size - at <= _MOST_PADDING and not any(read_at(file, at, max(0, size - at)))
