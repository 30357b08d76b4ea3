from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from omnitrace_core.errors import ConfigError
from pipeline.storage.addresses import absolute_path
from pipeline.storage.folder import Folder


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "local":
        yield Folder(str(tmp_path / "folder"))
        return
    if request.param == "s3":
        yield Folder(f"{request.getfixturevalue('s3_folder')}/folder")
        return
    yield Folder(f"memory://{tmp_path.name}/folder")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_copies_are_complete_or_missing(folder: Folder, tmp_path: Path) -> None:
    folder.write("a/one.txt", b"1")
    other = Folder(str(tmp_path / "other"))
    folder.copy("a/one.txt", other)
    assert other.read("a/one.txt") == b"1"
    with pytest.raises(FileNotFoundError):
        folder.copy("a/two.txt", other)
    assert other.tree("") == ["a/one.txt"]


def test_files_are_written_listed_read_and_deleted(folder: Folder) -> None:
    assert folder.names() == []
    assert folder.tree(".txt") == []
    folder.write("a/two.txt", b"2")
    folder.write("a/one.txt", b"1")
    folder.write("a/b/three.txt", b"3")
    folder.write("a/one.txt", b"11")
    assert folder.names("a") == ["one.txt", "two.txt"]
    assert folder.names("a", suffix=".json") == []
    assert folder.tree(".txt") == ["a/b/three.txt", "a/one.txt", "a/two.txt"]
    assert folder.read("a/one.txt") == b"11"
    with folder.open("a/two.txt") as file:
        assert file.read() == b"2"
    assert folder.is_file("a/one.txt")
    assert not folder.is_file("a")
    assert not folder.is_file("a/nine.txt")
    assert folder.exists("a")
    folder.delete("a/one.txt")
    folder.delete("a/one.txt")
    assert folder.names("a") == ["two.txt"]
    folder.delete_many(["a/two.txt", "a/nine.txt"])
    folder.delete_many([])
    assert folder.tree("") == ["a/b/three.txt"]
    folder.delete_folder("a")
    folder.delete_folder("a")
    assert not folder.exists("a/b/three.txt")
    with pytest.raises(FileNotFoundError):
        folder.read("a/one.txt")


def test_failed_write_keeps_the_old_file(folder: Folder) -> None:
    folder.write("a.txt", b"old")

    def fail() -> None:
        with folder.writing("a.txt") as path:
            path.write_bytes(b"partial")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert folder.read("a.txt") == b"old"
    assert folder.names() == ["a.txt"]


def test_disk_full_error_names_the_file(folder: Folder) -> None:
    """For a remote store it names the temporary file of this machine."""
    message = "No space left on device"
    with pytest.raises(OSError, match=message) as caught, folder.writing("folder/file") as path:
        raise OSError(errno.ENOSPC, message)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == (folder.url("folder/file") if folder.is_local else str(path))


def test_other_errors_do_not_name_the_file_being_written(folder: Folder) -> None:
    with pytest.raises(OSError, match=r"Input/output error$"), folder.writing("folder/file"):
        raise OSError(errno.EIO, "Input/output error")


def test_file_is_invisible_until_it_is_complete(folder: Folder) -> None:
    with folder.writing("a.txt") as path:
        path.write_bytes(b"partial")
        assert not folder.exists("a.txt")
        assert folder.tree(".txt") == []
    assert folder.read("a.txt") == b"partial"


def test_folder_can_be_sent_to_a_worker(folder: Folder) -> None:
    folder.write("a.txt", b"1")
    copy = pickle.loads(pickle.dumps(folder / "b"))
    copy.write("c.txt", b"2")
    assert folder.read("b/c.txt") == b"2"


def test_listings_return_the_identities(folder: Folder) -> None:
    assert folder.listing("a") == {}
    for name in ("a/one.txt", "a/two.json", "a/b/three.txt", "aa/four.txt"):
        folder.write(name, name.encode())
    assert folder.listing("a") == {
        "one.txt": folder.identity("a/one.txt"),
        "two.json": folder.identity("a/two.json"),
    }
    deep = ["a/b/three.txt", "a/one.txt", "aa/four.txt"]
    assert folder.tree_listing(".txt") == {name: folder.identity(name) for name in deep}
    assert folder.tree(".txt") == deep
    with pytest.raises(FileNotFoundError):
        folder.identity("a/nine.txt")


def test_identity_of_a_local_file_changes_with_it(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a", b"1")
    os.utime(tmp_path / "a", (1, 1))
    first = folder.identity("a")
    assert folder.identity("a") == first
    os.utime(tmp_path / "a", (2, 2))
    touched = folder.identity("a")
    assert touched != first
    folder.write("a", b"12")
    os.utime(tmp_path / "a", (2, 2))
    assert folder.identity("a") not in (first, touched)


class _TaggedFileSystem(MemoryFileSystem):
    """Stands for an object store, which has ETags."""

    protocol = "tagged"

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {**super().info(path, **kwargs), "ETag": '"abc"', "LastModified": 5}


def test_identity_in_an_object_store_is_the_etag() -> None:
    fsspec.register_implementation("tagged", _TaggedFileSystem, clobber=True)
    folder = Folder("tagged://bucket")
    folder.write("a", b"1")
    assert folder.identity("a") == "abc"
    MemoryFileSystem.store.clear()


def test_unknown_kind_of_address_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no such kind of storage"):
        Folder("nowhere://x").names()


def test_absolute_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_path("a/../b/") == str(tmp_path / "b")
    assert absolute_path("file:///x/y") == "/x/y"
    assert absolute_path("s3://bucket/a/") == "s3://bucket/a"
    assert absolute_path("/") == "/"
