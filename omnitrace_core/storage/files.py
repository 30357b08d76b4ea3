"""Opening files by fsspec address; S3 with our own retries, whoever opens it.

The one place where the other layers get a file system from an address. What S3 may do wrong and how
often it is asked again is in `s3_retries.py`; other stores retry as their fsspec package does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from omnitrace_core.storage.s3 import RetryingS3

_AHEAD_BYTES = 1024**2
S3_SCHEMES = frozenset({"s3", "s3a"})


def connect(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it.

    Its listings are what is there now, not what was there when this process began.

    Raises:
        ImportError: the package that reads such addresses is not installed.
        ValueError: there is no such kind of address.
    """
    if url.partition("://")[0].lower() in S3_SCHEMES:
        return s3_files(), url.partition("://")[2].rstrip("/")
    import fsspec

    fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    return fs, str(path)


def s3_files() -> RetryingS3:
    """This process's connection to S3, as the AWS variables now say.

    One for all: a client takes 50 ms to make and keeps connections open.
    """
    told = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return _s3_files(os.getpid(), tuple(told))


@lru_cache(maxsize=8)
def _s3_files(pid: int, told: tuple[tuple[str, str], ...]) -> RetryingS3:
    """pid: a forked child cannot use its parent's connections."""
    from omnitrace_core.storage.s3 import RetryingS3

    return RetryingS3(use_listings_cache=False, skip_instance_cache=True)


def identity_of(info: Mapping[str, Any]) -> str:
    """What changes when a file's content does: its ETag, or its size and time."""
    for key in ("ETag", "etag", "md5Hash", "crc32c"):
        if info.get(key):
            return str(info[key]).strip('"')
    times = [info[key] for key in ("mtime", "LastModified", "created") if info.get(key)]
    # One store can tell one time as a number here and as a date there.
    told = [str(time.timestamp() if isinstance(time, datetime) else time) for time in times]
    return f"{info['size']}-{told[0] if told else 'unknown'}"


def identity_at(url: str) -> str:
    """As `identity_of`, of the file at this address now. Raises: FileNotFoundError."""
    fs, path = connect(url)
    return identity_of(fs.info(path))


@contextmanager
def open_file(url: str) -> Iterator[IO[bytes]]:
    """A file for reading, by its address; on S3 a read that breaks off is done again."""
    with open_in(*connect(url)) as file:
        yield file


def open_in(fs: AbstractFileSystem, path: str) -> IO[bytes]:
    """A file for reading, of which Parquet's readers want some stretches.

    Raises: FileNotFoundError.
    """
    # s3fs would read 50 MiB behind each stretch, and so a shard of pictures for its ids.
    file: IO[bytes] = fs.open(path, "rb", block_size=_AHEAD_BYTES)
    return file
