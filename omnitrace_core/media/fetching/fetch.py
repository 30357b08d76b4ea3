"""Read the bytes of a part's media, within limits: inline, a local file, an object store, the web.

`gate.py` decides for every address whether it may be read.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from omnitrace_core.addresses import media_name
from omnitrace_core.errors import InvalidSample, MediaError, MediaMissing
from omnitrace_core.media.fetching.gate import Admitted, Kind, admit
from omnitrace_core.media.fetching.local import check_size, open_local, path_of
from omnitrace_core.media.fetching.store_errors import store_errors
from omnitrace_core.media.fetching.temporary import TemporaryMedia, temporary_media
from omnitrace_core.media.fetching.web import WebReader
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.progress.media_times import fetching
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.storage.files import connect

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

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
    admitted = _admit(part, options)
    if admitted.kind is Kind.LOCAL:
        with open_local(part.uri, options, media_name(part)) as file:
            return file.read(options.max_bytes)
    if admitted.kind is Kind.WEB:
        buffer = io.BytesIO()
        WebReader(options).copy(part.uri, buffer)
        return buffer.getvalue()
    with store_errors(part):
        filesystem, path = connect(admitted.address)
        _check_object(filesystem, path, part, options)
        content: bytes = filesystem.cat_file(path)
    return content


@contextmanager
def media_path(part: Part, options: MediaOptions) -> Iterator[Path]:
    """The path of a local file with the part's media, for decoders that need a path.

    A local file is read in place, through the descriptor that was checked. Other media are copied
    into a temporary file, which is deleted after the block.

    Raises: as `read_media`; MediaTooLarge also above what the disk of temporary files can hold.
        NodeFault: that disk has no space.
    """
    if part.data is None and _admit(part, options).kind is Kind.LOCAL:
        with open_local(part.uri, options, media_name(part)) as file:
            yield path_of(file)
        return
    with temporary_media(options, media_name(part)) as target:
        _copy_media(part, options, target)
        yield target.path


@fetching()
def _copy_media(part: Part, options: MediaOptions, target: TemporaryMedia) -> None:
    """Copy media that are not a local file into `target`."""
    if part.data is not None:
        content = read_media(part, options)
        target.expect(len(content))
        target.write(content)
        return
    admitted = _admit(part, options)
    if admitted.kind is Kind.WEB:
        WebReader(options).copy(part.uri, target, expect=target.expect)
        return
    with store_errors(part):
        filesystem, path = connect(admitted.address)
        target.expect(_check_object(filesystem, path, part, options))
        source = filesystem.open(path, "rb")
    with closing(source):
        while block := _next_block(source, part):
            target.write(block)
            report_progress()


def _next_block(source: BinaryIO, part: Part) -> bytes:
    with store_errors(part):
        return source.read(_BLOCK_BYTES)


def sha256_of(media: bytes | Path) -> str:
    """Hexadecimal SHA-256 of bytes, or of a file's bytes."""
    if isinstance(media, bytes):
        return hashlib.sha256(media).hexdigest()
    with media.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _admit(part: Part, options: MediaOptions) -> Admitted:
    """Raises: InvalidSample: the part has no address. MediaDenied: it may not be read."""
    if not part.uri:
        raise InvalidSample(f"{part.type} part has neither uri nor data; give one of them")
    return admit(part.uri, options)


def _check_object(
    filesystem: AbstractFileSystem, address: str, part: Part, options: MediaOptions
) -> int:
    """The size of an object that may be read."""
    info = filesystem.info(address)
    if info.get("type") != "file":
        raise MediaMissing(f"{media_name(part)}: this is a folder, not an object")
    if info.get("size") is None:
        raise MediaError(f"{media_name(part)}: the store does not report the object's size")
    size = int(info["size"])
    check_size(size, options, media_name(part))
    return size
