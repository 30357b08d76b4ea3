"""Open a local media file once, check it after opening, and read it through that descriptor.

A path may lead to another file a moment after it was checked. So the checks are made on the opened
file: where it lies (`media.roots`), what kind of file it is, how large it is.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from omnitrace_core.errors import (
    MediaDenied,
    MediaEmpty,
    MediaError,
    MediaMissing,
    MediaTooLarge,
    OmniTraceError,
)
from omnitrace_core.media.fetching.gate import check_roots
from omnitrace_core.options import MediaOptions
from omnitrace_core.runtime.node_faults import check_mount

# A scheme without its slashes: a typing error rather than a path.
_LIKE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# All other errors say nothing of whether there is a file.
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
# The folder where Linux offers each open file as a path.
DESCRIPTORS = Path("/proc/self/fd")


@contextmanager
def open_local(uri: str, options: MediaOptions, name: str) -> Iterator[BinaryIO]:
    """Open a local file for reading and check it.

    Raises:
        MediaMissing: no such file.
        MediaDenied: outside `media.roots`, not a regular file, or not readable.
        MediaTooLarge: more than `media.max_bytes`.
        MediaEmpty: zero bytes.
        MediaError: it cannot be read, or changed while it was read.
        NodeFault: its file system does not answer on this machine.
    """
    with _opened(uri, options, name) as file, _reading(file, name):
        before = os.fstat(file.fileno())
        check_size(before.st_size, options, name)
        yield file
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise MediaError(
            f"{name}: the file changed while it was read; run again when nothing writes to it"
        )


def path_of(file: BinaryIO) -> Path:
    """A path for decoders that need one: of the descriptor, on systems with such paths."""
    by_descriptor = DESCRIPTORS / str(file.fileno())
    return by_descriptor if DESCRIPTORS.is_dir() else Path(file.name)


def check_size(size: int, options: MediaOptions, name: str) -> None:
    """Check a file's size in bytes.

    Raises:
        MediaEmpty: zero bytes.
        MediaTooLarge: more than `media.max_bytes`.
    """
    if size == 0:
        raise MediaEmpty(f"{name}: zero bytes")
    if size > options.max_bytes:
        raise MediaTooLarge(
            f"{name}: {size:,} bytes, above media.max_bytes={options.max_bytes:,}; "
            "raise the limit in the config or shrink the file"
        )


@contextmanager
def _reading(file: BinaryIO, name: str) -> Iterator[None]:
    """Raise why a file cannot be read; decoders may have hidden it, or blamed the content."""
    path, descriptor = file.name, str(path_of(file))
    try:
        yield
    except Exception as error:
        check_mount(path)
        # Reading names no file, and decoders open it by its descriptor. Others are not of the file.
        if not isinstance(error, OSError) or isinstance(error, OmniTraceError):
            raise
        if error.errno is None or error.filename not in (None, descriptor):
            raise
        raise _unreadable(error, name) from error


def _opened(uri: str, options: MediaOptions, name: str) -> BinaryIO:
    try:
        # Check the roots before existence: a sample must not find out what lies outside them.
        path = Path(_plain_path(uri, name)).resolve()
        check_roots(path, options, name)
        # Before opening: that could wait for the other end of a pipe, or start a device.
        _check_regular(path.stat(), name)
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - closed by the caller
    except PermissionError as error:
        raise MediaDenied(
            f"{name}: this process may not read it ({error.strerror}); change its permissions"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: a NUL character in the path. RuntimeError: a loop of symlinks.
        if isinstance(error, OSError) and error.errno not in _MISSING:
            check_mount(_plain_path(uri, name))
            # EINVAL also comes when a link is replaced by a file while it is followed.
            raise _unreadable(error, name) from error
        hint = "; addresses in stores are written s3://bucket/name" if _LIKE_URL.match(uri) else ""
        raise MediaMissing(
            f"{name}: no such file; relative paths start at {Path.cwd()}{hint}"
        ) from error
    try:
        _check_regular(os.fstat(file.fileno()), name)
        check_roots(_real_path(file), options, name)
    except BaseException:
        file.close()
        raise
    return file


def _unreadable(error: OSError, name: str) -> MediaError:
    reason = error.strerror or type(error).__name__
    return MediaError(
        f"{name}: the file cannot be read ({reason}); check its disk, or the server it lies on"
    )


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _real_path(file: BinaryIO) -> Path:
    """The path of an open file; on systems without /proc, where its name leads now."""
    by_descriptor = path_of(file)
    return by_descriptor.readlink() if DESCRIPTORS.is_dir() else by_descriptor.resolve()


def _check_regular(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise MediaDenied(f"{name}: not a regular file; give the path of one")


def _plain_path(uri: str, name: str) -> str:
    """The path in a `file://` URL, or the address itself."""
    if not uri.lower().startswith("file://"):
        return uri
    url = urlsplit(uri)
    if url.netloc not in ("", "localhost"):
        raise MediaDenied(f"{name}: a file on another host; use file:///path")
    return unquote(uri[len("file://") + len(url.netloc) :])
