"""Open files by fsspec address; S3 always with our own retries.

All other modules get a file system from an address here. `s3_retries.py` says which requests to S3
are retried and how often; other stores retry as their fsspec package does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

from omnitrace_core.errors import NodeFault, StoreCredentials, StoreUnavailable
from omnitrace_core.runtime.node_faults import check_mount

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from omnitrace_core.storage.s3 import RetryingS3

_READ_AHEAD_BYTES = 1024**2
S3_SCHEMES = frozenset({"s3", "s3a"})
_SCHEME = re.compile("([A-Za-z][A-Za-z0-9+.-]*)://")
_CHAIN = re.compile("[A-Za-z0-9_+.-]+::.*://", re.DOTALL)


def scheme_of(url: str) -> str:
    """The scheme of a URL in lower case; empty for a path, which may hold `://` further on."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def is_chain(url: str) -> bool:
    """Whether fsspec reads this as several file systems, such as `simplecache::s3://b/x`."""
    return _CHAIN.match(url) is not None


def connect(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it.

    Listings are not cached, so they are always current.

    Raises:
        ImportError: the package that reads this kind of address is not installed.
        ValueError: fsspec does not know this kind of address.
    """
    scheme = scheme_of(url)
    if scheme in S3_SCHEMES:
        return s3_files(), url.partition("://")[2].rstrip("/")
    import fsspec

    if scheme in ("", "file") and not is_chain(url):
        # Not by `url_to_fs`, which reads `::` in a path as a chain of file systems.
        path = url.partition("://")[2] if scheme else url
        options = {"use_listings_cache": False, "skip_instance_cache": True}
        return fsspec.filesystem("file", **options), os.path.abspath(path)
    fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    return fs, str(path)


def s3_files() -> RetryingS3:
    """This process's S3 file system, configured by the current AWS variables.

    It is shared, because a client takes 50 ms to create and keeps its connections open.
    """
    settings = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return _s3_files(os.getpid(), tuple(settings))


@lru_cache(maxsize=8)
def _s3_files(pid: int, settings: tuple[tuple[str, str], ...]) -> RetryingS3:
    """pid, settings: cache keys; a forked child cannot use its parent's connections."""
    from omnitrace_core.storage.s3 import RetryingS3

    return RetryingS3(use_listings_cache=False, skip_instance_cache=True)


def identity_of(info: Mapping[str, Any]) -> str:
    """A text that changes when the file's content does: its ETag, or its size and time."""
    for key in ("ETag", "etag", "md5Hash", "crc32c"):
        if info.get(key):
            return str(info[key]).strip('"')
    times = [info[key] for key in ("mtime", "LastModified", "created") if info.get(key)]
    # The same store can report a time as a number in one call and as a date in another.
    stamps = [str(time.timestamp() if isinstance(time, datetime) else time) for time in times]
    return f"{info['size']}-{stamps[0] if stamps else 'unknown'}"


def identity_at(url: str) -> str:
    """The `identity_of` the file now at this address.

    Raises: FileNotFoundError; NodeFault: its local file system does not answer.
    """
    fs, path = connect(url)
    with _checking_mount(url):
        return identity_of(fs.info(path))


@contextmanager
def open_file(url: str) -> Iterator[IO[bytes]]:
    """Open a file for reading by its address; on S3 failed reads are retried.

    Raises: NodeFault: its local file system does not answer; also for errors of the block.
    """
    with _checking_mount(url), open_in(*connect(url)) as file:
        yield file


class FileChanged(Exception):
    """A file is not the version that was asked for, or not any more."""


@contextmanager
def open_version(url: str, identity: str | None) -> Iterator[IO[bytes]]:
    """As `open_file`, but only the version with this `identity_of`. None: whichever there is.

    What is opened is compared before it is read, and the address once more at the end: a file that
    is replaced while it is read, and brought back with its time, is not read in between.

    Raises:
        FileNotFoundError: there is no file.
        FileChanged: it is another version, or gone at the end; in place of errors of the block,
            too.
    """
    if identity is None:
        with open_file(url) as file:
            yield file
        return
    opened = False
    try:
        with open_file(url) as file:
            opened = True
            if _opened_identity(file) not in (identity, None):
                raise FileChanged(f"{url} is another version")
            yield file
    except (StoreUnavailable, StoreCredentials, NodeFault):
        raise
    except Exception as error:
        # What was read of a file that changed meanwhile may look damaged.
        if opened and _is_other_version(url, identity):
            raise FileChanged(f"{url} is another version") from error
        raise
    if _is_other_version(url, identity):
        raise FileChanged(f"{url} is another version")


def _opened_identity(file: IO[bytes]) -> str | None:
    """The `identity_of` an open file, whatever its address shows now; None if nothing tells it."""
    # Clients of stores keep what the store said when the file was opened; s3fs reads each range
    # on condition of that ETag.
    if details := getattr(file, "details", None):
        return identity_of(details)
    try:
        stat = os.fstat(file.fileno())
    except (AttributeError, OSError):
        return None
    return identity_of({"size": stat.st_size, "mtime": stat.st_mtime})


def _is_other_version(url: str, identity: str) -> bool:
    try:
        return identity_at(url) != identity
    except FileNotFoundError:
        return True


@contextmanager
def _checking_mount(url: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        check_mount_of(url)
        raise


def check_mount_of(url: str) -> None:
    """As `check_mount` for the address of a local file; of files in stores it says nothing.

    Raises: NodeFault: its local file system does not answer.
    """
    scheme = scheme_of(url)
    if scheme in ("", "file") and not is_chain(url):
        check_mount(url.partition("://")[2] if scheme else url)


def open_in(fs: AbstractFileSystem, path: str) -> IO[bytes]:
    """Open a file for reading byte ranges, as Parquet readers do.

    Raises: FileNotFoundError.
    """
    # s3fs reads 50 MiB ahead by default: a whole shard of images just for its sample ids.
    file: IO[bytes] = fs.open(path, "rb", block_size=_READ_AHEAD_BYTES)
    return file
