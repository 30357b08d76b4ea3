"""Folders on any filesystem that fsspec knows, with writes that are whole or not there at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO

from omnitrace_core.errors import ConfigError
from pipeline.storage.disk import PARTIAL
from pipeline.storage.stores import ABSENT, AnyStore, LocalStore, Taken, identity_of, store_of

__all__ = ["ABSENT", "PARTIAL", "Folder", "absolute"]


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Folder:
    """A folder; names in it are relative and use `/`.

    Cheap to make and to send to workers: the filesystem is opened where it is used. Credentials
    come from the environment, as each filesystem defines it. Anything here can raise
    `StoreUnavailable` (an OSError) or `StoreCredentials` (a ConfigError) where that is S3.
    """

    def __init__(self, root: str) -> None:
        self.root = absolute(root)

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.root}/{name}")

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return Folder, (self.root,)

    @cached_property
    def _opened(self) -> tuple[AnyStore, str]:
        try:
            return store_of(self.root)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{self.root}: no such kind of storage ({error})") from error

    @property
    def _store(self) -> AnyStore:
        return self._opened[0]

    def _path(self, name: str) -> str:
        path = self._opened[1]
        return f"{path}/{name}" if name else path

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's own file system."""
        return isinstance(self._store, LocalStore)

    @property
    def is_conditional(self) -> bool:
        """Whether `create`, `swap` and `writing(over=...)` hold against other writers.

        Elsewhere they ask first and then write, so that two writers can both be told yes.
        """
        return self._store.is_conditional

    def url(self, name: str) -> str:
        """Full address of a file."""
        return f"{self.root}/{name}" if name else self.root

    # --- looking ----------------------------------------------------------------------------

    def names(self, folder: str = "", suffix: str = "") -> list[str]:
        """Names of the files directly in a folder, sorted; a missing folder has none."""
        return sorted(self.listing(folder, suffix))

    def listing(self, folder: str = "", suffix: str = "") -> dict[str, str]:
        """As `names`, each with its `identity`; S3: one request per 1,000 files."""
        found = self._store.listing(self._path(folder), deep=False)
        return {name: told for name, told in found.items() if name.endswith(suffix)}

    def tree(self, suffix: str) -> list[str]:
        """Names of all files below the root that end so, sorted."""
        return sorted(self.tree_listing(suffix))

    def tree_listing(self, suffix: str) -> dict[str, str]:
        """As `tree`, each with its `identity`; S3: one request per 1,000 files."""
        found = self._store.listing(self._path(""), deep=True)
        return {name: told for name, told in found.items() if name.endswith(suffix)}

    def is_file(self, name: str = "") -> bool:
        """Whether this is a file."""
        info = self._store.info(self._path(name))
        return info is not None and info["type"] == "file"

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of this name."""
        return self._store.info(self._path(name)) is not None

    def identity(self, name: str) -> str:
        """What changes when the file's content does: its ETag, or its size and time.

        Raises: FileNotFoundError.
        """
        info = self._store.info(self._path(name))
        if info is None:
            raise FileNotFoundError(self.url(name))
        return identity_of(info)

    def version(self, name: str) -> str:
        """What `writing(over=...)` compares: changes with the file; ABSENT if there is none."""
        return self._store.version(self._path(name))

    # --- reading ----------------------------------------------------------------------------

    def open(self, name: str) -> IO[bytes]:
        """A file for reading. Raises: FileNotFoundError."""
        return self._store.open(self._path(name))

    def read(self, name: str) -> bytes:
        """A whole file. Raises: FileNotFoundError."""
        return self._store.read(self._path(name))

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        """A whole file, and the tag of exactly this version of it, for `swap`.

        Raises: FileNotFoundError.
        """
        return self._store.read_tagged(self._path(name))

    # --- writing ----------------------------------------------------------------------------

    @contextmanager
    def writing(self, name: str, over: str | None = None) -> Iterator[Path]:
        """A local path to write; the file appears under its name, whole, when the block ends well.

        over: only if this `version` is there by then (ABSENT: nothing), or else FileExistsError
        when the block ends.
        Local folders: a temporary neighbour, which is then given its name. Others: a temporary
        file here, then an upload, which object stores make visible only when it is complete.

        Raises: FileExistsError.
        """
        where = self.url(name)
        try:
            with self._store.writing(self._path(name), over) as path:
                if not self.is_local:
                    where = str(path)
                yield path
        except Taken as error:
            told = "is there already" if over == ABSENT else "was changed or deleted meanwhile"
            raise FileExistsError(f"{self.url(name)} {told}") from error
        except OSError as error:
            # Of a full disk the system does not tell what was being written.
            if error.errno in _FULL and error.filename is None:
                error.filename = where
            raise

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        with self.writing(name) as path:
            path.write_bytes(content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a whole file only if nothing is there; whether it was written."""
        return self._store.create(self._path(name), content)

    def swap(
        self, name: str, content: bytes, tag: str, within_s: float | None = None
    ) -> str | None:
        """Replace a file only if it is still the version that `tag` names; returns the new tag.

        None: it is another version by now, or gone. In S3 that version can be another's that was
        made from this one: when the answer to this write was lost and time went by until it was
        asked for again.

        within_s: S3: no longer than this, tries and pauses together, or else StoreUnavailable; it
        may have been written, then.
        """
        return self._store.swap(self._path(name), content, tag, within_s)

    def replace(self, name: str, content: bytes, confirm: Callable[[], None]) -> None:
        """Write a whole file over what was there before `confirm` was asked, which may raise.

        Raises: FileExistsError, if others keep writing it though `confirm` lets us.
        """
        for is_last in (False, True):
            over = self.version(name)
            confirm()
            try:
                with self.writing(name, over) as path:
                    path.write_bytes(content)
                return
            except FileExistsError:
                if is_last:
                    raise

    def copy(self, name: str, to: Folder, confirm: Callable[[], None] | None = None) -> None:
        """Copy a file to the same name in another folder.

        confirm: asked when it is here; then only what was there before is written over.

        Raises: FileNotFoundError, FileExistsError.
        """
        with to.writing(name, over=to.version(name) if confirm else None) as copy:
            self._store.copy_out(self._path(name), copy)
            if confirm:
                confirm()

    def delete(self, name: str) -> None:
        """Delete a file; it is no error if it is gone already."""
        self.delete_many([name])

    def delete_many(self, names: Sequence[str]) -> None:
        """Delete files; it is no error if some are gone already. S3: 1,000 a request."""
        self._store.delete([self._path(name) for name in names])

    def delete_folder(self, name: str) -> None:
        """Delete a folder with all that is in it; it is no error if it is gone already."""
        self._store.delete_folder(self._path(name))


def absolute(path: str) -> str:
    """A path or URL in one spelling: local paths absolute, no slash at the end."""
    path = path.removeprefix("file://")
    return (path if "://" in path else os.path.abspath(path)).rstrip("/") or "/"
