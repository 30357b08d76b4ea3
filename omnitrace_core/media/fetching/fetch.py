"""Read the bytes of a part's media, within limits: inline, a local file, an object store, the web.

If `media.roots` has entries, local files must lie below one of them, after symlinks are resolved.
From the web, only the hosts in `media.web_hosts` are read (`web.py`).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from omnitrace_core.addresses import is_web, media_name
from omnitrace_core.errors import (
    ConfigError,
    InvalidSample,
    MediaDenied,
    MediaError,
    MediaMissing,
    MediaUnavailable,
    StoreUnavailable,
)
from omnitrace_core.media.fetching.local import DESCRIPTORS, check_size, open_local, path_of
from omnitrace_core.media.fetching.web import WebReader
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.progress.media_times import fetching
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.runtime.node_faults import temporary_files
from omnitrace_core.storage.files import connect

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# The only kinds of fsspec address that are read. Others would also fetch from web and file servers
# that a sample's author chose. `memory` is this process's own memory.
_OBJECT_STORES = frozenset(
    {
        *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"),
        *("hdfs", "hf", "memory", "oci", "oss"),
    }
)
_BLOCK_BYTES = 1 << 20


@fetching()
def read_media(part: Part, options: MediaOptions) -> bytes:
    """The bytes of a part's media.

    Raises:
        InvalidSample: the part has neither an address nor inline bytes.
        MediaMissing: there is no file or object.
        MediaDenied: this run may not read the address, or its owner refuses.
        MediaUnavailable: the object store did not answer, after all retries.
        MediaTimeout: the download took longer than `media.web_timeout_s`.
        MediaTooLarge: more than `media.max_bytes`; at most that much is read.
        MediaEmpty: zero bytes.
        MediaError: the file, the store or the web server could not be read.
    """
    if part.data is not None:
        check_size(len(part.data), options, media_name(part))
        return part.data
    if _is_local(part):
        with open_local(part.uri, options, media_name(part)) as file:
            return file.read(options.max_bytes)
    if is_web(part.uri):
        buffer = io.BytesIO()
        WebReader(options).copy(part.uri, buffer)
        return buffer.getvalue()
    filesystem, address = _open_store(part)
    with _store_errors(part):
        _check_object(filesystem, address, part, options)
        content: bytes = filesystem.cat_file(address)
    return content


@contextmanager
def media_path(part: Part, options: MediaOptions) -> Iterator[Path]:
    """The path of a local file with the part's media, for decoders that need a path.

    A local file is read in place, through the descriptor that was checked. Other media are copied
    into a temporary file, which is deleted after the block.

    Raises: as `read_media`.
    """
    if part.data is None and _is_local(part):
        with open_local(part.uri, options, media_name(part)) as file:
            yield path_of(file)
        return
    with _temporary_file() as (path, target):
        _copy_media(part, options, target)
        target.flush()
        yield path


@fetching()
def _copy_media(part: Part, options: MediaOptions, target: BinaryIO) -> None:
    """Copy media that are not a local file into `target`."""
    if part.data is not None:
        target.write(read_media(part, options))
        return
    if is_web(part.uri):
        WebReader(options).copy(part.uri, target)
        return
    filesystem, address = _open_store(part)
    with _store_errors(part):
        _check_object(filesystem, address, part, options)
        with filesystem.open(address, "rb") as source:
            while block := source.read(_BLOCK_BYTES):
                target.write(block)
                report_progress()


@contextmanager
def _temporary_file() -> Iterator[tuple[Path, BinaryIO]]:
    """A file to write to, and a path to read it by.

    On systems where the descriptor serves as a path, the file has no name, so nothing is left of it
    when this process is killed.
    """
    if DESCRIPTORS.is_dir():
        with temporary_files():
            file = tempfile.TemporaryFile(prefix="omnitrace-")  # noqa: SIM115 - closed below
        with file:
            yield DESCRIPTORS / str(file.fileno()), cast(BinaryIO, _Target(file))
    else:
        with temporary_files():
            named = tempfile.NamedTemporaryFile(prefix="omnitrace-")  # noqa: SIM115 - closed below
        with named:
            yield Path(named.name), cast(BinaryIO, _Target(named.file))


class _Target:
    """A temporary file to write to: its errors are the machine's, and not the sample's."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, block: bytes) -> int:
        with temporary_files():
            return self._file.write(block)

    def flush(self) -> None:
        with temporary_files():
            self._file.flush()


def sha256_of(media: bytes | Path) -> str:
    """Hexadecimal SHA-256 of bytes, or of a file's bytes."""
    if isinstance(media, bytes):
        return hashlib.sha256(media).hexdigest()
    with media.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_local(part: Part) -> bool:
    """Whether a part's address is a local path. Raises: InvalidSample: it has no address."""
    if not part.uri:
        raise InvalidSample(f"{part.type} part has neither uri nor data; give one of them")
    scheme, separator, _ = part.uri.partition("://")
    return not separator or scheme.lower() == "file"


def _open_store(part: Part) -> tuple[AbstractFileSystem, str]:
    """The file system and address of a part in an object store."""
    name = media_name(part)
    scheme, _, path = part.uri.partition("://")
    scheme = scheme.lower()
    if "::" in part.uri:
        # fsspec reads this as a chain of addresses, and the last may be of any kind.
        raise MediaDenied(f"{name}: addresses with :: are not read; rename the object")
    if scheme not in _OBJECT_STORES:
        raise MediaDenied(
            f"{name}: addresses of {scheme}:// are not read; use a path or one of "
            f"{', '.join(sorted(_OBJECT_STORES))}"
        )
    try:
        filesystem, address = connect(f"{scheme}://{path}")
    except ImportError as error:
        raise MediaDenied(
            f"{name}: the package that reads {scheme}:// is not installed ({error}); pip install it"
        ) from error
    return filesystem, address


def _check_object(
    filesystem: AbstractFileSystem, address: str, part: Part, options: MediaOptions
) -> None:
    info = filesystem.info(address)
    if info.get("type") != "file":
        raise MediaMissing(f"{media_name(part)}: this is a folder, not an object")
    if info.get("size") is None:
        raise MediaError(f"{media_name(part)}: the store does not report the object's size")
    check_size(int(info["size"]), options, media_name(part))


@contextmanager
def _store_errors(part: Part) -> Iterator[None]:
    """Raise errors of an object store as media errors."""
    name = media_name(part)
    try:
        yield
    except FileNotFoundError as error:
        raise MediaMissing(f"{name}: no such object") from error
    except PermissionError as error:
        raise MediaDenied(
            f"{name}: the store refuses access ({error}); check its credentials"
        ) from error
    except StoreUnavailable as error:
        raise MediaUnavailable(f"{name}: {error.message}") from error
    except ConfigError as error:
        raise MediaMissing(
            f"{name}: this is not a valid address of an object ({error.message})"
        ) from error
    except OSError as error:
        raise MediaError(f"{name}: the store could not be read: {error}") from error
