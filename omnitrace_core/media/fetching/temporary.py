"""Temporary files for media that decoders read by a path.

A full disk is the machine's fault, and the run is tried again on another machine. A sample that
could not be written even to an empty disk would fail on each try, so it is the sample's error.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import cast

from omnitrace_core.errors import MediaTooLarge
from omnitrace_core.media.fetching.local import DESCRIPTORS
from omnitrace_core.options import MediaOptions
from omnitrace_core.runtime.node_faults import temporary_files


class TemporaryMedia:
    """A temporary file that one sample's media are written to.

    path: to read it by, within the block of `temporary_media`.
    """

    def __init__(self, file: FileIO, path: Path, options: MediaOptions, name: str) -> None:
        self.path = path
        self._file = file
        self._options = options
        self._name = name
        self._n_bytes = 0
        self._expected = 0

    def expect(self, size: int) -> None:
        """Say how many bytes will be written, if it is known.

        Raises: MediaTooLarge: the disk is smaller than that, even when it is empty.
        """
        self._expected = size
        self._check_capacity(f"{size:,} bytes", size)

    def write(self, block: bytes) -> None:
        """Write all of a block.

        Raises:
            NodeFault: this machine has no space for it.
            MediaTooLarge: an empty disk would have none either.
        """
        size = self._n_bytes + len(block)
        try:
            self._write_all(block)
        except OSError as error:
            reason = error
        else:
            self._n_bytes = size
            return
        # Outside the handler: an error of the sample must not have the machine's as its cause.
        if reason.errno == errno.EFBIG:
            raise MediaTooLarge(
                f"{self._name}: {self._shown(size)}, and a temporary file of that size is not "
                f"allowed in {tempfile.gettempdir()} (file system, ulimit -f); set TMPDIR to "
                "another folder, or shrink the file"
            )
        if reason.errno == errno.ENOSPC:
            self._check_capacity(self._shown(size), size)
        remedy = (
            f"{self._name} takes {self._shown(size)}: free space there, set TMPDIR to a folder "
            f"with space, or lower media.max_bytes={self._options.max_bytes:,}"
        )
        with temporary_files(remedy):
            raise reason

    def _write_all(self, block: bytes) -> None:
        left = memoryview(block)
        while left:
            left = left[self._file.write(left) :]

    def _shown(self, size: int) -> str:
        return f"{self._expected:,} bytes" if self._expected else f"at least {size:,} bytes"

    def _check_capacity(self, shown: str, size: int) -> None:
        disk = os.fstatvfs(self._file.fileno())
        capacity = disk.f_blocks * disk.f_frsize
        # Some file systems do not say how large they are.
        if 0 < capacity < size:
            raise MediaTooLarge(
                f"{self._name}: {shown}, above the {capacity:,} bytes that the disk with "
                f"temporary files in {tempfile.gettempdir()} holds when it is empty; set TMPDIR "
                "to a folder on a larger disk, or shrink the file"
            )


@contextmanager
def temporary_media(options: MediaOptions, name: str) -> Iterator[TemporaryMedia]:
    """A temporary file, deleted after the block. name: of the media, for messages.

    On systems where the descriptor serves as a path, the file has no name, so nothing is left of it
    when this process is killed. It has no buffer: all errors of the disk come from `write`.

    Raises: NodeFault: this machine has no folder for it.
    """
    is_path = DESCRIPTORS.is_dir()
    with temporary_files():
        file = _unnamed() if is_path else _named()
    with file:
        path = DESCRIPTORS / str(file.fileno()) if is_path else Path(str(file.name))
        yield TemporaryMedia(file, path, options, name)


def _unnamed() -> FileIO:
    return tempfile.TemporaryFile(prefix="omnitrace-", buffering=0)


def _named() -> FileIO:
    return cast(FileIO, tempfile.NamedTemporaryFile(prefix="omnitrace-", buffering=0))
