"""Folders on any file system that fsspec knows, with atomic and conditional writes.

Three tokens say whether a file is still the same. identity: what a listing shows of it without
reading it (ETag, or size and time); part of a plan. version: the identity, or ABSENT; the condition
of `writing`. tag: of exactly the content that was read; the condition of `swap`. On S3 all three
are the ETag.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO

from fsspec.implementations.local import LocalFileSystem

from omnitrace_core.errors import ConfigError
from omnitrace_core.storage.files import connect, identity_of
from pipeline.storage.addresses import absolute_path, is_on_s3
from pipeline.storage.disk import PARTIAL
from pipeline.storage.local_store import LocalStore
from pipeline.storage.s3_store import S3Store
from pipeline.storage.store import ABSENT, Store, VersionConflict

__all__ = ["ABSENT", "PARTIAL", "Folder", "absolute_path"]

_DELETE_BATCH = 1000  # files in one request, on S3
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Folder:
    """A folder on any store; names of its files are relative to it and use `/`.

    Cheap to create and to send to workers: the file system is opened at the first use. Credentials
    come from the environment, as each file system defines it. On S3, every method can raise
    `StoreUnavailable` (an OSError) or `StoreCredentials` (a ConfigError).
    """

    def __init__(self, root: str) -> None:
        self.root = absolute_path(root)

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.root}/{name}")

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (self.root,)

    @cached_property
    def _opened(self) -> tuple[Store, str]:
        try:
            return open_store(self.root)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{self.root}: no such kind of storage ({error})") from error

    @property
    def _store(self) -> Store:
        return self._opened[0]

    def _path(self, name: str) -> str:
        path = self._opened[1]
        return f"{path}/{name}" if name else path

    @property
    def is_local(self) -> bool:
        """Whether the folder is on the file system of this machine."""
        return isinstance(self._store, LocalStore)

    @property
    def is_conditional(self) -> bool:
        """Whether `create`, `swap` and `writing(if_version=...)` are atomic.

        If not, they look at the file first and then write, so two writers may both succeed.
        """
        return self._store.is_conditional

    def url(self, name: str) -> str:
        """Full address of a file."""
        return f"{self.root}/{name}" if name else self.root

    def names(self, folder: str = "", suffix: str = "") -> list[str]:
        """Sorted names of the files directly in a folder; none if there is no such folder."""
        return sorted(self.listing(folder, suffix))

    def listing(self, folder: str = "", suffix: str = "") -> dict[str, str]:
        """As `names`, each with its `identity`; S3: one request per 1,000 files."""
        found = self._store.listing(self._path(folder), deep=False)
        return {name: identity for name, identity in found.items() if name.endswith(suffix)}

    def sizes(self, folder: str = "", suffix: str = "", *, deep: bool = False) -> dict[str, int]:
        """As `names`, each with its bytes; S3: one request per 1,000 files.

        deep: also of the files below, by their names in the folder.
        """
        found = self._store.sizes(self._path(folder), deep)
        return {name: size for name, size in sorted(found.items()) if name.endswith(suffix)}

    def tree(self, suffix: str) -> list[str]:
        """Sorted names of all files in the folder and below it that end with `suffix`."""
        return sorted(self.tree_listing(suffix))

    def tree_listing(self, suffix: str) -> dict[str, str]:
        """As `tree`, each with its `identity`; S3: one request per 1,000 files."""
        found = self._store.listing(self._path(""), deep=True)
        return {name: identity for name, identity in found.items() if name.endswith(suffix)}

    def is_file(self, name: str = "") -> bool:
        """Whether there is a file of this name."""
        info = self._store.info(self._path(name))
        return info is not None and info["type"] == "file"

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of this name."""
        return self._store.info(self._path(name)) is not None

    def identity(self, name: str) -> str:
        """Changes when the file's content does: its ETag, or its size and time.

        Raises: FileNotFoundError.
        """
        info = self._store.info(self._path(name))
        if info is None:
            raise FileNotFoundError(self.url(name))
        return identity_of(info)

    def version(self, name: str) -> str:
        """For `writing(if_version=...)`: changes with the file; ABSENT if there is none."""
        return self._store.version(self._path(name))

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading. Raises: FileNotFoundError."""
        return self._store.open(self._path(name))

    def read(self, name: str) -> bytes:
        """Read a whole file. Raises: FileNotFoundError."""
        return self._store.read(self._path(name))

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        """Read a whole file, and the tag of exactly this content, for `swap`.

        Raises: FileNotFoundError.
        """
        return self._store.read_tagged(self._path(name))

    @contextmanager
    def writing(self, name: str, if_version: str | None = None) -> Iterator[Path]:
        """A local path to write to; the complete file appears under its name when the block ends.

        If the block raises, nothing appears. In a local folder, the path is a temporary file beside
        it, which is then renamed. Elsewhere it is a temporary file of this machine, which is then
        uploaded; object stores make an upload visible only when it is complete.

        if_version: the `version` that the file must have when the block ends (ABSENT: no file).

        Raises:
            FileExistsError: at the end of the block, the file has another version.
        """
        where = self.url(name)
        try:
            with self._store.writing(self._path(name), if_version) as path:
                if not self.is_local:
                    where = str(path)
                yield path
        except VersionConflict as error:
            state = "exists already" if if_version == ABSENT else "was changed or deleted meanwhile"
            raise FileExistsError(f"{self.url(name)} {state}") from error
        except OSError as error:
            # The system does not say which file was being written when the disk was full.
            if error.errno in _DISK_FULL and error.filename is None:
                error.filename = where
            raise

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        with self.writing(name) as path:
            path.write_bytes(content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a whole file if there is none of this name; returns whether it was written."""
        return self._store.create(self._path(name), content)

    def swap(
        self, name: str, content: bytes, tag: str, within_s: float | None = None
    ) -> str | None:
        """Replace a file if it still has this tag; returns the new tag.

        Returns None if the file has another tag or is gone. On S3 that can also happen after a
        write that was done: if the answer to it was lost, and somebody else replaced the file
        before the write was tried again.

        within_s: on S3, the limit for all tries and pauses together. Beyond it, StoreUnavailable is
        raised, and the file may have been written.
        """
        return self._store.swap(self._path(name), content, tag, within_s)

    def replace(self, name: str, content: bytes, confirm: Callable[[], None]) -> None:
        """Replace the version of a file that was there before `confirm` was called.

        confirm: raises if we may not write.

        Raises:
            FileExistsError: others keep writing the file, though `confirm` does not raise.
        """
        for is_last in (False, True):
            version = self.version(name)
            confirm()
            try:
                with self.writing(name, version) as path:
                    path.write_bytes(content)
                return
            except FileExistsError:
                if is_last:
                    raise

    def copy(
        self, name: str, to: Folder, confirm: Callable[[], None] | None = None, as_name: str = ""
    ) -> int:
        """Copy a file to another folder, or to another name; returns the bytes of the copy.

        confirm: raises if we may not write; called after the download. If given, the copy replaces
        only the version that was there before. as_name: by default the same name.

        Raises: FileNotFoundError, FileExistsError.
        """
        as_name = as_name or name
        with to.writing(as_name, if_version=to.version(as_name) if confirm else None) as copy:
            self._store.download(self._path(name), copy)
            n_bytes = copy.stat().st_size
            if confirm:
                confirm()
        return n_bytes

    def delete(self, name: str) -> None:
        """Delete a file; a file that does not exist is ignored."""
        self.delete_many([name])

    def delete_many(self, names: Sequence[str]) -> None:
        """Delete files; files that do not exist are ignored. S3: 1,000 per request."""
        self._store.delete([self._path(name) for name in names])

    def delete_folder(
        self,
        name: str,
        confirm: Callable[[], None] = lambda: None,
        owned: re.Pattern[str] | None = None,
    ) -> None:
        """Delete the files that are in a folder now, and the folder if no file is left in it.

        owned: only files of these names, and none below subfolders; by default all.
        confirm: raises if we may not delete; called after the listing, and then before each
        thousand files. So a process that is suspended after it deletes only files that were there
        before.
        """
        path = self._path(name)
        if owned is None:
            files = self._store.files_below(path)
        else:
            files = [f"{path}/{file}" for file in self.names(name) if owned.fullmatch(file)]
        confirm()
        for start in range(0, len(files), _DELETE_BATCH):
            if start:
                confirm()
            self._store.delete(files[start : start + _DELETE_BATCH])
        self._store.delete_empty_folders(path, deep=owned is None)


def open_store(root: str) -> tuple[Store, str]:
    """The store of an address, and the path in it.

    Raises:
        ImportError: the package that reads such addresses is not installed.
        ValueError: there is no such kind of address.
    """
    fs, path = connect(root)
    if is_on_s3(root):
        return S3Store(fs), path
    kind = LocalStore if isinstance(fs, LocalFileSystem) else Store
    return kind(fs), path.rstrip("/") or path[:1]
