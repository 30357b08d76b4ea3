"""Folders on any filesystem that fsspec knows, with writes that are whole or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from omnitrace_core.errors import ConfigError


class Storage:
    """A folder; names in it are relative and use `/`.

    Cheap to make and to send to workers: the filesystem is opened where it is used. Credentials
    come from the environment, as each filesystem defines it.
    """

    def __init__(self, root: str) -> None:
        self.root = absolute(root)

    def __truediv__(self, name: str) -> Storage:
        return Storage(f"{self.root}/{name}")

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        return Storage, (self.root,)

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        # Listings must be what is there now, not what was there when this process began.
        try:
            fs, path = fsspec.core.url_to_fs(
                self.root, use_listings_cache=False, skip_instance_cache=True
            )
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{self.root}: no such kind of storage ({error})") from error
        return fs, path.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's own file system."""
        return isinstance(self._opened[0], LocalFileSystem)

    def _path(self, name: str) -> str:
        path = self._opened[1]
        return f"{path}/{name}" if name else path

    def url(self, name: str) -> str:
        """Full address of a file."""
        return f"{self.root}/{name}" if name else self.root

    def names(self, folder: str = "", suffix: str = "") -> list[str]:
        """Names of the files directly in a folder, sorted; a missing folder has none."""
        fs = self._opened[0]
        try:
            entries = fs.ls(self._path(folder), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        files = [str(entry["name"]) for entry in entries if entry["type"] == "file"]
        bare = [name.rstrip("/").rsplit("/", 1)[-1] for name in files]
        return sorted(name for name in bare if name.endswith(suffix))

    def tree(self, suffix: str) -> list[str]:
        """Names of all files below the root that end so, sorted."""
        fs, path = self._opened
        return sorted(
            str(name)[len(path) :].lstrip("/") for name in fs.find(path) if name.endswith(suffix)
        )

    def is_file(self, name: str = "") -> bool:
        """Whether this is a file."""
        return bool(self._opened[0].isfile(self._path(name)))

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of this name."""
        return bool(self._opened[0].exists(self._path(name)))

    def open(self, name: str) -> IO[bytes]:
        """A file for reading."""
        handle: IO[bytes] = self._opened[0].open(self._path(name), "rb")
        return handle

    def read(self, name: str) -> bytes:
        """A whole file. Raises: FileNotFoundError."""
        try:
            content: bytes = self._opened[0].cat_file(self._path(name))
        except NotADirectoryError as error:
            raise FileNotFoundError(self.url(name)) from error
        return content

    def identity(self, name: str) -> str:
        """What changes when the file's content does: its ETag, or its size and time."""
        info = self._opened[0].info(self._path(name))
        for key in ("ETag", "etag", "md5Hash", "crc32c"):
            if info.get(key):
                return str(info[key]).strip('"')
        times = [info[key] for key in ("mtime", "LastModified", "created") if info.get(key)]
        return f"{info['size']}-{times[0] if times else 'unknown'}"

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write; the file appears under its name, whole, when the block ends well.

        Local folders: a temporary neighbour, then `os.replace`. Others: a temporary file here, then
        one upload, which object stores make visible only when it is complete.
        """
        if self.is_local:
            target = Path(self._path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}{PARTIAL}")
        else:
            folder = tempfile.mkdtemp(prefix="omnitrace-")
            partial = Path(folder) / "upload"
        try:
            yield partial
            if self.is_local:
                _flush(partial)
                os.replace(partial, target)
            else:
                self._opened[0].put_file(str(partial), self._path(name))
        finally:
            partial.unlink(missing_ok=True)
            if not self.is_local:
                partial.parent.rmdir()

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        with self.writing(name) as path:
            path.write_bytes(content)

    def copy(self, name: str, to: Storage) -> None:
        """Copy a file to the same name in another folder. Raises: FileNotFoundError."""
        fs, path = self._opened[0], self._path(name)
        with to.writing(name) as copy:
            if self.is_local:
                shutil.copyfile(path, copy)  # within the kernel
            else:
                fs.get_file(path, str(copy))

    def delete(self, name: str) -> None:
        """Delete a file; it is no error if it is gone already."""
        try:
            self._opened[0].rm_file(self._path(name))
        except FileNotFoundError:
            return

    def delete_folder(self, name: str) -> None:
        """Delete a folder with all that is in it; it is no error if it is gone already."""
        try:
            self._opened[0].rm(self._path(name), recursive=True)
        except FileNotFoundError:
            return


PARTIAL = ".partial"


def _flush(path: Path) -> None:
    """Put the content on disk before its name, so that a power cut cannot leave an empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def absolute(path: str) -> str:
    """A path or URL in one spelling: local paths absolute, no slash at the end."""
    path = path.removeprefix("file://")
    return (path if "://" in path else os.path.abspath(path)).rstrip("/") or "/"
