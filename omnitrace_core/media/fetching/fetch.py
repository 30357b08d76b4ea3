"""Getting at a part's bytes, within the limits: inline, a local file, an object store, the web.

Local files must lie under `media.roots` when roots are given, with symlinks resolved first; of the
web only the hosts in `media.web_hosts` are read (`web.py`).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from omnitrace_core.addresses import is_web, shown_address
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
from omnitrace_core.media.isolation.heartbeat import report_progress
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.storage.files import connect

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Of fsspec's only these leave the machine: a general URL opener would also fetch from web and file
# servers that a sample's author chose. `memory` stays inside the process.
_OBJECT_STORES = frozenset(
    {
        *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"),
        *("hdfs", "hf", "memory", "oci", "oss"),
    }
)
_BLOCK_BYTES = 1 << 20


def media_name(part: Part) -> str:
    """How messages name a part's media: its address, or that it came inline."""
    if part.data is not None or not part.uri:
        return f"inline {part.type}"
    return shown_address(part.uri)


def read_media(part: Part, options: MediaOptions) -> bytes:
    """The bytes of a part's media.

    Raises:
        InvalidSample: the part has neither an address nor inline bytes.
        MediaMissing: no file or object there.
        MediaDenied: not an address this run may read.
        MediaUnavailable: the object store did not answer, however often it was asked.
        MediaTimeout: a web server was too slow for `media.web_timeout_s`.
        MediaTooLarge: more than `media.max_bytes`; no more than that was read.
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
    """A local file with the part's media, for decoders that want a path; gone after the block.

    A local file is used where it stands, through the descriptor that was checked, everything else
    goes through a temporary file.

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


def _copy_media(part: Part, options: MediaOptions, target: BinaryIO) -> None:
    """Write media that is not a local file into one."""
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
    """A file to write, and the path to read it by.

    Where the system lets a file be opened again by its descriptor it has no name, so that nothing
    is left of it when this process is killed.
    """
    if DESCRIPTORS.is_dir():
        with tempfile.TemporaryFile(prefix="omnitrace-") as file:
            yield DESCRIPTORS / str(file.fileno()), cast(BinaryIO, file)
    else:
        with tempfile.NamedTemporaryFile(prefix="omnitrace-") as named:
            yield Path(named.name), cast(BinaryIO, named.file)


def sha256_of(media: bytes | Path) -> str:
    """Hexadecimal SHA-256 of bytes, or of a file's bytes."""
    if isinstance(media, bytes):
        return hashlib.sha256(media).hexdigest()
    with media.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_local(part: Part) -> bool:
    """Whether a part's address is a path. Raises: InvalidSample: it has none."""
    if not part.uri:
        raise InvalidSample(f"{part.type} part has neither uri nor data; give one of them")
    scheme, mark, _ = part.uri.partition("://")
    return not mark or scheme.lower() == "file"


def _open_store(part: Part) -> tuple[AbstractFileSystem, str]:
    """The file system and address of a part in an object store."""
    name = media_name(part)
    scheme, _, place = part.uri.partition("://")
    scheme = scheme.lower()
    if "::" in part.uri:
        # fsspec reads a chain of addresses in it, the last of which may be anything.
        raise MediaDenied(f"{name}: addresses with :: are not read; rename the object")
    if scheme not in _OBJECT_STORES:
        raise MediaDenied(
            f"{name}: addresses of {scheme}:// are not read; use a path or one of "
            f"{', '.join(sorted(_OBJECT_STORES))}"
        )
    try:
        filesystem, address = connect(f"{scheme}://{place}")
    except ImportError as error:
        raise MediaDenied(
            f"{name}: no reader for {scheme}:// is installed ({error}); pip install it"
        ) from error
    return filesystem, address


def _check_object(
    filesystem: AbstractFileSystem, address: str, part: Part, options: MediaOptions
) -> None:
    found = filesystem.info(address)
    if found.get("type") != "file":
        raise MediaMissing(f"{media_name(part)}: a folder, not an object")
    if found.get("size") is None:
        raise MediaError(f"{media_name(part)}: the store does not tell the object's size")
    check_size(int(found["size"]), options, media_name(part))


@contextmanager
def _store_errors(part: Part) -> Iterator[None]:
    """Errors of an object store, as ours."""
    name = media_name(part)
    try:
        yield
    except FileNotFoundError as error:
        raise MediaMissing(f"{name}: no such object") from error
    except PermissionError as error:
        raise MediaDenied(f"{name}: the store refuses ({error}); check its credentials") from error
    except StoreUnavailable as error:
        raise MediaUnavailable(f"{name}: {error}") from error
    except ConfigError as error:
        raise MediaMissing(f"{name}: cannot be the address of an object ({error})") from error
    except OSError as error:
        raise MediaError(f"{name}: the store could not be read: {error}") from error
