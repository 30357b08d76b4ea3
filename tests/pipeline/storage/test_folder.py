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
from pipeline.storage.folder import Folder, absolute


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "local":
        yield Folder(str(tmp_path / "folder"))
        return
    if request.param == "s3":
        yield Folder(f"{request.getfixturevalue('s3_folder')}/folder")
        return
    yield Folder(f"memory://{tmp_path.name}/folder")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_copies_are_whole_or_not_there(storage: Folder, tmp_path: Path) -> None:
    storage.write("a/one.txt", b"1")
    other = Folder(str(tmp_path / "other"))
    storage.copy("a/one.txt", other)
    assert other.read("a/one.txt") == b"1"
    with pytest.raises(FileNotFoundError):
        storage.copy("a/two.txt", other)
    assert other.tree("") == ["a/one.txt"]


def test_files_come_and_go(storage: Folder) -> None:
    assert storage.names() == []
    assert storage.tree(".txt") == []
    storage.write("a/two.txt", b"2")
    storage.write("a/one.txt", b"1")
    storage.write("a/b/three.txt", b"3")
    storage.write("a/one.txt", b"11")
    assert storage.names("a") == ["one.txt", "two.txt"]
    assert storage.names("a", suffix=".json") == []
    assert storage.tree(".txt") == ["a/b/three.txt", "a/one.txt", "a/two.txt"]
    assert storage.read("a/one.txt") == b"11"
    with storage.open("a/two.txt") as file:
        assert file.read() == b"2"
    assert storage.is_file("a/one.txt")
    assert not storage.is_file("a")
    assert not storage.is_file("a/nine.txt")
    assert storage.exists("a")
    storage.delete("a/one.txt")
    storage.delete("a/one.txt")
    assert storage.names("a") == ["two.txt"]
    storage.delete_many(["a/two.txt", "a/nine.txt"])
    storage.delete_many([])
    assert storage.tree("") == ["a/b/three.txt"]
    storage.delete_folder("a")
    storage.delete_folder("a")
    assert not storage.exists("a/b/three.txt")
    with pytest.raises(FileNotFoundError):
        storage.read("a/one.txt")


def test_write_that_fails_leaves_the_old_file(storage: Folder) -> None:
    storage.write("a.txt", b"old")

    def fail() -> None:
        with storage.writing("a.txt") as path:
            path.write_bytes(b"half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert storage.read("a.txt") == b"old"
    assert storage.names() == ["a.txt"]


def test_disk_that_is_full_says_of_what(storage: Folder) -> None:
    """Elsewhere than on a disk it is this machine's temporary folder that is full."""
    told = "No space left on device"
    with pytest.raises(OSError, match=told) as met, storage.writing("folder/file") as path:
        raise OSError(errno.ENOSPC, told)
    assert met.value.errno == errno.ENOSPC
    assert met.value.filename == (storage.url("folder/file") if storage.is_local else str(path))


def test_what_failed_otherwise_is_not_blamed_on_what_is_written(storage: Folder) -> None:
    with pytest.raises(OSError, match=r"Input/output error$"), storage.writing("folder/file"):
        raise OSError(errno.EIO, "Input/output error")


def test_nothing_appears_under_the_name_before_it_is_whole(storage: Folder) -> None:
    with storage.writing("a.txt") as path:
        path.write_bytes(b"half")
        assert not storage.exists("a.txt")
        assert storage.tree(".txt") == []
    assert storage.read("a.txt") == b"half"


def test_storage_can_be_sent_to_a_worker(storage: Folder) -> None:
    storage.write("a.txt", b"1")
    there = pickle.loads(pickle.dumps(storage / "b"))
    there.write("c.txt", b"2")
    assert storage.read("b/c.txt") == b"2"


def test_listings_tell_what_identity_does(storage: Folder) -> None:
    assert storage.listing("a") == {}
    for name in ("a/one.txt", "a/two.json", "a/b/three.txt", "aa/four.txt"):
        storage.write(name, name.encode())
    assert storage.listing("a") == {
        "one.txt": storage.identity("a/one.txt"),
        "two.json": storage.identity("a/two.json"),
    }
    deep = ["a/b/three.txt", "a/one.txt", "aa/four.txt"]
    assert storage.tree_listing(".txt") == {name: storage.identity(name) for name in deep}
    assert storage.tree(".txt") == deep
    with pytest.raises(FileNotFoundError):
        storage.identity("a/nine.txt")


def test_identity_of_a_local_file_changes_with_it(tmp_path: Path) -> None:
    storage = Folder(str(tmp_path))
    storage.write("a", b"1")
    os.utime(tmp_path / "a", (1, 1))
    first = storage.identity("a")
    assert storage.identity("a") == first
    os.utime(tmp_path / "a", (2, 2))
    touched = storage.identity("a")
    assert touched != first
    storage.write("a", b"12")
    os.utime(tmp_path / "a", (2, 2))
    assert storage.identity("a") not in (first, touched)


class _TaggedFileSystem(MemoryFileSystem):
    """A stand-in for an object store, which names content by an ETag."""

    protocol = "tagged"

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {**super().info(path, **kwargs), "ETag": '"abc"', "LastModified": 5}


def test_identity_in_an_object_store_is_the_etag() -> None:
    fsspec.register_implementation("tagged", _TaggedFileSystem, clobber=True)
    storage = Folder("tagged://bucket")
    storage.write("a", b"1")
    assert storage.identity("a") == "abc"
    MemoryFileSystem.store.clear()


def test_unknown_kind_of_storage_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no such kind of storage"):
        Folder("nowhere://x").names()


def test_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a/../b/") == str(tmp_path / "b")
    assert absolute("file:///x/y") == "/x/y"
    assert absolute("s3://bucket/a/") == "s3://bucket/a"
    assert absolute("/") == "/"
