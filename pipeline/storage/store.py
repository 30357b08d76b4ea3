"""The file operations of a store: the base class, for any file system of fsspec."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec

from omnitrace_core.storage.files import identity_of, open_in

ABSENT = ""  # the version of a file that does not exist
Entry = Mapping[str, Any]  # of a listing, as fsspec describes a file or folder


class VersionConflict(FileExistsError):
    """A conditional write found another version of the file than it expected."""


class Store:
    """Files on any file system of fsspec.

    A conditional write looks at the file first and then writes, so two writers at the same time may
    both succeed. `LocalStore` and `S3Store` rule that out.
    """

    is_conditional = False

    def __init__(self, fs: fsspec.AbstractFileSystem) -> None:
        self.fs = fs

    def info(self, path: str) -> Mapping[str, Any] | None:
        """What fsspec knows of a file or folder; None if there is none."""
        # Not `fs.exists` or `fs.isfile`: they return False for every error.
        try:
            info: Mapping[str, Any] = self.fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info

    def listing(self, path: str, deep: bool) -> dict[str, str]:
        """Identity of each file in a folder (deep: also below it), by its name in the folder."""
        return {name: identity_of(entry) for name, entry in self.entries(path, deep).items()}

    def sizes(self, path: str, deep: bool) -> dict[str, int]:
        """Bytes of each file in a folder (deep: also below it), by its name in the folder."""
        return {name: int(entry["size"]) for name, entry in self.entries(path, deep).items()}

    def entries(self, path: str, deep: bool) -> dict[str, Entry]:
        """The files in a folder (deep: also below it), by their names in the folder."""
        try:
            if deep:
                entries = list(self.fs.find(path, detail=True).values())
            else:
                entries = self.fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        prefix = f"{path.rstrip('/')}/"
        return {
            str(entry["name"]).removeprefix(prefix): entry
            for entry in self._files(entries, deep)
            if str(entry["name"]).startswith(prefix)
        }

    def _files(self, entries: Iterable[Entry], deep: bool) -> Iterator[Entry]:
        """The entries of a listing that are files."""
        return (entry for entry in entries if entry["type"] == "file")

    def open(self, path: str) -> IO[bytes]:
        """A file for reading. Raises: FileNotFoundError."""
        return open_in(self.fs, path)

    def read(self, path: str) -> bytes:
        """A whole file. Raises: FileNotFoundError."""
        content: bytes = self.fs.cat_file(path)
        return content

    def read_tagged(self, path: str) -> tuple[bytes, str]:
        """A whole file, and a tag of exactly this content. Raises: FileNotFoundError."""
        content = self.read(path)
        return content, content_tag(content)

    def version(self, path: str) -> str:
        """What `writing` compares: changes when the file does; ABSENT if there is no file."""
        info = self.info(path)
        return ABSENT if info is None else identity_of(info)

    @contextmanager
    def writing(self, path: str, if_version: str | None) -> Iterator[Path]:
        """A temporary file on this machine, then one upload; see `Folder.writing`.

        Raises: VersionConflict.
        """
        with tempfile.TemporaryDirectory(prefix="omnitrace-") as folder:
            partial = Path(folder) / "upload"
            yield partial
            self.upload(partial, path, if_version)

    def upload(self, source: Path, path: str, if_version: str | None) -> None:
        """Write a complete local file to the store. Raises: VersionConflict."""
        if if_version is not None and self.version(path) != if_version:
            raise VersionConflict(path)
        self.fs.put_file(str(source), path)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file if there is none of this name; returns whether it was written."""
        try:
            with self.writing(path, ABSENT) as partial:
                partial.write_bytes(content)
        except VersionConflict:
            return False
        return True

    def swap(
        self, path: str, content: bytes, tag: str, within_s: float | None = None
    ) -> str | None:
        """Replace a file if it still has this tag; returns the new tag, or None if it has not."""
        try:
            if self.read_tagged(path)[1] != tag:
                return None
        except FileNotFoundError:
            return None
        with self.writing(path, None) as partial:
            partial.write_bytes(content)
        return content_tag(content)

    def download(self, path: str, copy: Path) -> None:
        """Copy a file to a local path. Raises: FileNotFoundError."""
        self.fs.get_file(path, str(copy))

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files; files that do not exist are ignored."""
        for path in paths:
            try:
                self.fs.rm_file(path)
            except FileNotFoundError:
                continue

    def files_below(self, path: str) -> list[str]:
        """Paths of all files in a folder and below it; none if there is no such folder."""
        return [f"{path}/{name}" for name in self.listing(path, deep=True)]

    def delete_empty_folders(self, path: str, deep: bool) -> None:
        """Delete a folder if it is empty (deep: also those below); no effect without folders."""


def content_tag(content: bytes) -> str:
    """A tag of a file's content, for file systems that have no ETags."""
    return hashlib.sha256(content).hexdigest()
