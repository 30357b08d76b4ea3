"""Files on the file system of this machine, with atomic and conditional writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.storage import disk
from pipeline.storage.locks import file_lock, folder_lock
from pipeline.storage.store import ABSENT, Entry, Store, VersionConflict, content_tag


class LocalStore(Store):
    """The file system of this machine, or one that is mounted on it."""

    is_conditional = True

    @contextmanager
    def writing(self, path: str, if_version: str | None) -> Iterator[Path]:
        """A temporary file in the same folder, then an atomic rename."""
        target = Path(path)
        partial = disk.new_partial(target)
        try:
            yield partial
            disk.flush(partial)
            if if_version is None:
                os.replace(partial, target)
            elif if_version == ABSENT:
                self._rename_if_absent(partial, target)
            else:
                with folder_lock(target):
                    if self.version(path) != if_version:
                        raise VersionConflict(path)
                    os.replace(partial, target)
        except FileNotFoundError as error:
            if not if_version or partial.exists() or str(error.filename) != str(partial):
                raise
            # Another driver has deleted the partial file as that of a killed writer.
            raise VersionConflict(path) from error
        finally:
            partial.unlink(missing_ok=True)

    def _rename_if_absent(self, partial: Path, target: Path) -> None:
        try:
            disk.rename_if_absent(partial, target)
        except FileExistsError as error:
            raise VersionConflict(str(target)) from error

    def read(self, path: str) -> bytes:
        """A whole file. Raises: FileNotFoundError."""
        try:
            return Path(path).read_bytes()
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(path) from error

    def create(self, path: str, content: bytes) -> bool:
        """Write a file if there is none of this name; returns whether it was written."""
        try:
            return super().create(path, content)
        except FileNotFoundError:
            # Another writer created and swapped the file meanwhile, which deleted our partial file.
            if self.info(path) is None:
                raise
            return False

    def swap(
        self, path: str, content: bytes, tag: str, within_s: float | None = None
    ) -> str | None:
        """As `Store.swap`, but under a lock that every writer who swaps this file takes.

        within_s: limit for the wait for the lock.
        """
        target = Path(path)
        if not target.parent.is_dir():
            return None
        partial = disk.partial_path(target)
        try:
            # Flushed before the lock is taken, so that the lock is held only for a moment: no other
            # writer waits for a slow disk, or for a process that is suspended meanwhile.
            partial.write_bytes(content)
            disk.flush(partial)
            with file_lock(target, within_s):
                if self.read_tagged(path)[1] != tag:
                    return None
                os.replace(partial, target)
                disk.delete_partials(target)
        except FileNotFoundError:
            # The file is gone, or another writer who swapped it has deleted our partial file.
            return None
        finally:
            partial.unlink(missing_ok=True)
        return content_tag(content)

    def _files(self, entries: Iterable[Entry], deep: bool) -> Iterator[Entry]:
        """The files of a listing, following symbolic links.

        A link counts as what it leads to, and a broken link as a file that cannot be read. So a
        shard that is a link, or lies in a folder that is one, is not ignored silently. A file that
        is reached in several ways is listed once.
        """
        files, links = self._split(entries)
        yield from files
        if not deep or not links:
            return
        listed = {os.path.realpath(file["name"]) for file in files}
        followed: set[str] = set()
        for link in links:
            folder = os.path.realpath(link)
            if folder in followed or disk.links_to_ancestor(link):
                continue
            followed.add(folder)
            below, more = self._split(self.fs.find(link, detail=True).values())
            links.extend(more)
            for file in below:
                if (real := os.path.realpath(file["name"])) not in listed:
                    listed.add(real)
                    yield file

    def _split(self, entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
        """The files among a listing's entries, and the links to folders."""
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

    def download(self, path: str, copy: Path) -> None:
        """Copy a file within the kernel. Raises: FileNotFoundError."""
        shutil.copyfile(path, copy)

    def files_below(self, path: str) -> list[str]:
        """As `Store.files_below`; links inside the folder are not followed, but listed."""
        found = []
        for place, folders, files in os.walk(path):
            links = [name for name in folders if os.path.islink(os.path.join(place, name))]
            found += [os.path.join(place, name) for name in (*files, *links)]
        return sorted(found)

    def delete_empty_folders(self, path: str, deep: bool) -> None:
        """Delete a folder (deep: first the folders below it), as far as they are empty.

        A folder that is a link, or gets a file at this moment, stays.
        """
        for place in [item[0] for item in os.walk(path, topdown=False)] if deep else [path]:
            with suppress(OSError):
                os.rmdir(place)
