"""What `Folder` does in a way of its own on this machine's disk, in S3, and elsewhere."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from omnitrace_core.storage.conditions import if_absent, if_tag
from omnitrace_core.storage.files import S3_SCHEMES, connect, identity_of, open_in
from pipeline.storage import disk

ABSENT = ""  # the version of a file that is not there
_DELETIONS = 3
Entry = Mapping[str, Any]


class Taken(FileExistsError):
    """Something else is there than may be written over."""


class AnyStore:
    """Files on any file system of fsspec; whether something is there is asked before writing.

    So two writers can both believe to be the first, which the kinds below rule out.
    """

    is_conditional = False

    def __init__(self, fs: fsspec.AbstractFileSystem) -> None:
        self.fs = fs

    def info(self, path: str) -> Mapping[str, Any] | None:
        """What is known of a file or folder, if there is one."""
        # Not `fs.exists` or `fs.isfile`: they take every error for a no.
        try:
            info: Mapping[str, Any] = self.fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return info

    def listing(self, path: str, deep: bool) -> dict[str, str]:
        """Identity of each file in a folder (deep: and below it) by its name there."""
        try:
            if deep:
                entries = list(self.fs.find(path, detail=True).values())
            else:
                entries = self.fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        prefix = f"{path.rstrip('/')}/"
        return {
            str(entry["name"]).removeprefix(prefix): identity_of(entry)
            for entry in self._files(entries, deep)
            if str(entry["name"]).startswith(prefix)
        }

    def _files(self, entries: Iterable[Entry], deep: bool) -> Iterator[Entry]:
        """Those of a listing's entries that are files."""
        return (entry for entry in entries if entry["type"] == "file")

    def open(self, path: str) -> IO[bytes]:
        """A file for reading. Raises: FileNotFoundError."""
        return open_in(self.fs, path)

    def read(self, path: str) -> bytes:
        """A whole file. Raises: FileNotFoundError."""
        content: bytes = self.fs.cat_file(path)
        return content

    def read_tagged(self, path: str) -> tuple[bytes, str]:
        """A whole file, and what names this version of it. Raises: FileNotFoundError."""
        content = self.read(path)
        return content, tag_of(content)

    def version(self, path: str) -> str:
        """What `writing` compares: changes when the file does; ABSENT if there is none."""
        info = self.info(path)
        return ABSENT if info is None else identity_of(info)

    @contextmanager
    def writing(self, path: str, over: str | None) -> Iterator[Path]:
        """A temporary file here, then one upload. over: see `Folder.writing`. Raises: Taken."""
        with tempfile.TemporaryDirectory(prefix="omnitrace-") as folder:
            partial = Path(folder) / "upload"
            yield partial
            self.upload(partial, path, over)

    def upload(self, source: Path, path: str, over: str | None) -> None:
        """Write a file that is whole here. Raises: Taken."""
        if over is not None and self.version(path) != over:
            raise Taken(path)
        self.fs.put_file(str(source), path)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file if nothing is there; whether it was written."""
        try:
            with self.writing(path, ABSENT) as partial:
                partial.write_bytes(content)
        except Taken:
            return False
        return True

    def swap(
        self, path: str, content: bytes, tag: str, within_s: float | None = None
    ) -> str | None:
        """Replace a file that is still of this tag; the new tag, or None if it is another."""
        try:
            if self.read_tagged(path)[1] != tag:
                return None
        except FileNotFoundError:
            return None
        with self.writing(path, None) as partial:
            partial.write_bytes(content)
        return tag_of(content)

    def copy_out(self, path: str, copy: Path) -> None:
        """Copy a file to this machine. Raises: FileNotFoundError."""
        self.fs.get_file(path, str(copy))

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files; it is no error if they are gone already."""
        for path in paths:
            try:
                self.fs.rm_file(path)
            except FileNotFoundError:
                continue

    def delete_folder(self, path: str) -> None:
        """Delete a folder with all that is in it; it is no error if it is gone already."""
        try:
            self.fs.rm(path, recursive=True)
        except FileNotFoundError:
            return


class LocalStore(AnyStore):
    """This machine's own file system, or one that is mounted here."""

    is_conditional = True

    @contextmanager
    def writing(self, path: str, over: str | None) -> Iterator[Path]:
        """A temporary neighbour, then a new name for it, which is all or nothing."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = disk.neighbour(target)
        try:
            yield partial
            disk.flush(partial)
            if over is None:
                os.replace(partial, target)
            elif over == ABSENT:
                self._link(partial, target)
            else:
                with disk.folder_locked(target):
                    if self.version(path) != over:
                        raise Taken(path)
                    os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def _link(self, partial: Path, target: Path) -> None:
        try:
            disk.link(partial, target)
        except FileExistsError as error:
            raise Taken(str(target)) from error

    def read(self, path: str) -> bytes:
        """A whole file. Raises: FileNotFoundError."""
        try:
            return Path(path).read_bytes()
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(path) from error

    def create(self, path: str, content: bytes) -> bool:
        """Write a file if nothing is there; whether it was written."""
        try:
            return super().create(path, content)
        except FileNotFoundError:
            # Another made the file meanwhile and has swapped it already, which swept ours away.
            if self.info(path) is None:
                raise
            return False

    def swap(
        self, path: str, content: bytes, tag: str, within_s: float | None = None
    ) -> str | None:
        """As elsewhere, but compared and replaced under a lock that all who swap here take."""
        target = Path(path)
        if not target.parent.is_dir():
            return None
        partial = disk.neighbour(target)
        try:
            # On the disk before the lock is taken: whoever holds that is done with it at once, and
            # nobody waits behind a slow disk, or behind a process that sleeps meanwhile.
            partial.write_bytes(content)
            disk.flush(partial)
            with disk.locked(target):
                if self.read_tagged(path)[1] != tag:
                    return None
                os.replace(partial, target)
                disk.sweep(target)
        except FileNotFoundError:
            # The file, or our partial: swept away by another who has swapped.
            return None
        finally:
            partial.unlink(missing_ok=True)
        return tag_of(content)

    def _files(self, entries: Iterable[Entry], deep: bool) -> Iterator[Entry]:
        """Links count as what they lead to, and those that lead nowhere as files nobody can read.

        So a shard that is a link, or lies in a folder that is one, is not passed over in silence.
        Where links lead to folders that are in the listing anyway, each file is listed once.
        """
        files, links = self._sorted_out(entries)
        yield from files
        if not deep or not links:
            return
        listed = {os.path.realpath(file["name"]) for file in files}
        followed: set[str] = set()
        for link in links:
            folder = os.path.realpath(link)
            if folder in followed or disk.is_above(link):
                continue
            followed.add(folder)
            below, more = self._sorted_out(self.fs.find(link, detail=True).values())
            links.extend(more)
            for file in below:
                if (real := os.path.realpath(file["name"])) not in listed:
                    listed.add(real)
                    yield file

    def _sorted_out(self, entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
        """Files among a listing's entries, and links to folders."""
        files, links = [], []
        for entry in entries:
            target = self._target(entry) if entry.get("islink") else entry
            if target["type"] == "file":
                files.append(target)
            elif entry.get("islink"):
                links.append(str(entry["name"]))
        return files, links

    def _target(self, link: Entry) -> Entry:
        try:
            found: Entry = self.fs.info(link["name"])
        except OSError:
            return {**link, "type": "file"}
        return found

    def copy_out(self, path: str, copy: Path) -> None:
        """Copy a file within the kernel. Raises: FileNotFoundError."""
        shutil.copyfile(path, copy)

    def delete_folder(self, path: str) -> None:
        """Delete a folder, though others may write into it or delete in it at the same time."""
        for _ in range(_DELETIONS):
            shutil.rmtree(path, ignore_errors=True)
            if not os.path.lexists(path):
                return
        shutil.rmtree(path)


class S3Store(AnyStore):
    """S3, which checks the condition of a write itself."""

    is_conditional = True

    def version(self, path: str) -> str:
        """The ETag: one request, where `info` would also look for a folder of that name."""
        tag: str | None = self.fs.tag_of(path)
        return ABSENT if tag is None else tag

    def listing(self, path: str, deep: bool) -> dict[str, str]:
        """One request per 1,000 files."""
        try:
            found = self.fs.list_objects(path, deep)
        except FileNotFoundError:  # the bucket
            return {}
        return {name: identity_of(info) for name, info in found.items()}

    def read(self, path: str) -> bytes:
        """A whole file. Raises: FileNotFoundError."""
        return self.read_tagged(path)[0]

    def read_tagged(self, path: str) -> tuple[bytes, str]:
        """A whole file and its ETag, of one answer. Raises: FileNotFoundError."""
        tagged: tuple[bytes, str] = self.fs.read_tagged(path)
        return tagged

    def upload(self, source: Path, path: str, over: str | None) -> None:
        """One request, or an upload in parts. Raises: Taken."""
        condition = {} if over is None else if_absent() if over == ABSENT else if_tag(over)
        if self.fs.upload(source, path, condition) is None:
            raise Taken(path)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file if nothing is there; whether it was written."""
        return self.fs.put_content(path, content, if_absent()) is not None

    def swap(
        self, path: str, content: bytes, tag: str, within_s: float | None = None
    ) -> str | None:
        """Replace a file that is still of this tag; the new tag, or None if it is another."""
        new: str | None = self.fs.put_content(path, content, if_tag(tag), within_s)
        return new

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files, 1,000 a request."""
        self.fs.delete_all(paths)

    def delete_folder(self, path: str) -> None:
        """Delete all files below a folder."""
        self.fs.delete_all([f"{path}/{name}" for name in self.fs.list_objects(path, True)])


def store_of(root: str) -> tuple[AnyStore, str]:
    """What does the work in a folder, and the folder's path there.

    Raises:
        ImportError: the package that reads such addresses is not installed.
        ValueError: there is no such kind of address.
    """
    fs, path = connect(root)
    if root.partition("://")[0].lower() in S3_SCHEMES:
        return S3Store(fs), path
    kind = LocalStore if isinstance(fs, LocalFileSystem) else AnyStore
    return kind(fs), path.rstrip("/")


def tag_of(content: bytes) -> str:
    """Names a version of a file where the file system has no name for it."""
    return hashlib.sha256(content).hexdigest()
