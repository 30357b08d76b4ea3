"""A file with another beginning, for readers that believe headers."""

from __future__ import annotations

import io
import os
from typing import BinaryIO


class Splice(io.RawIOBase):
    """Some bytes, and then those of a file in [start, end); read only."""

    def __init__(self, head: bytes, file: BinaryIO, start: int, end: int) -> None:
        super().__init__()
        self._head = head
        self._file = file
        self._start = start
        self._size = len(head) + max(0, end - start)
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The offset."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset. Returns it."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer. Returns how many bytes there were."""
        wanted = min(len(buffer), max(0, self._size - self._at))
        data = self._head[self._at : self._at + wanted]
        if len(data) < wanted:
            self._file.seek(self._start + self._at + len(data) - len(self._head))
            data += self._file.read(wanted - len(data))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
