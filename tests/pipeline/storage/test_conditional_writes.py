"""Conditional writes: of several writers at a time, one succeeds."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from omnitrace_core.storage import s3_writes
from omnitrace_core.storage.files import s3_files
from pipeline.storage import disk
from pipeline.storage.folder import ABSENT, PARTIAL, Folder

_MEMORY = "memory"


@pytest.fixture(params=["local", _MEMORY, "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == _MEMORY:
        yield Folder(f"memory://{tmp_path.name}/folder")
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]
    elif request.param == "local":
        yield Folder(str(tmp_path / "folder"))
    else:
        yield Folder(f"{request.getfixturevalue('s3_folder')}/folder")


def test_is_conditional_says_whether_writes_are_atomic(folder: Folder) -> None:
    assert folder.is_conditional == (not folder.root.startswith(_MEMORY))


def test_only_the_first_create_succeeds(folder: Folder) -> None:
    assert folder.create("a/lease.json", b"first")
    assert not folder.create("a/lease.json", b"second")
    assert folder.read("a/lease.json") == b"first"
    folder.delete("a/lease.json")
    assert folder.create("a/lease.json", b"third")
    assert folder.names("a") == ["lease.json"]


def test_swap_needs_the_tag_of_the_present_version(folder: Folder) -> None:
    folder.write("a", b"1")
    content, tag = folder.read_tagged("a")
    assert content == b"1"
    new = folder.swap("a", b"2", tag)
    assert new is not None
    assert folder.read_tagged("a") == (b"2", new)
    assert folder.swap("a", b"3", tag) is None
    assert folder.read("a") == b"2"
    folder.delete("a")
    assert folder.swap("a", b"3", new) is None
    assert not folder.exists("a")
    assert folder.swap("no/such", b"3", new) is None
    with pytest.raises(FileNotFoundError):
        folder.read_tagged("a")


def test_swap_accepts_the_tag_of_a_created_file(folder: Folder) -> None:
    folder.create("a", b"1")
    tag = folder.read_tagged("a")[1]
    for step in range(3):
        tag = folder.swap("a", f"{step}".encode(), tag) or ""
        assert tag
    assert folder.read("a") == b"2"


def test_create_only_write_does_not_replace_a_file(folder: Folder) -> None:
    with folder.writing("a/chunk", if_version=ABSENT) as path:
        path.write_bytes(b"first")

    def write_again() -> None:
        with folder.writing("a/chunk", if_version=ABSENT) as path:
            path.write_bytes(b"second")

    with pytest.raises(FileExistsError, match=f"{folder.root}/a/chunk exists already"):
        write_again()
    assert folder.read("a/chunk") == b"first"
    assert folder.names("a") == ["chunk"]


def test_error_inside_a_create_only_write_is_raised_unchanged(folder: Folder) -> None:
    def fail() -> None:
        with folder.writing("a", if_version=ABSENT):
            raise FileExistsError("raised inside")

    with pytest.raises(FileExistsError, match="raised inside"):
        fail()
    assert not folder.exists("a")


@pytest.fixture(params=["local", "s3"])
def shared_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    place = tmp_path if request.param == "local" else request.getfixturevalue("s3_folder")
    return Folder(f"{place}/folder")


def _create(root: str, writer: int) -> bool:
    return Folder(root).create("lease", f"{writer}".encode())


def _write_new(root: str, writer: int) -> bool:
    try:
        with Folder(root).writing("new", if_version=ABSENT) as path:
            path.write_bytes(f"{writer}".encode() * 1000)
    except FileExistsError:
        return False
    return True


def _count_up(root: str, times: int) -> int:
    """Add 1 to a counter by swaps, so many times; returns the number of attempts."""
    folder, attempts = Folder(root), 0
    for _ in range(times):
        while True:
            content, tag = folder.read_tagged("counter")
            attempts += 1
            if folder.swap("counter", str(int(content) + 1).encode(), tag):
                break
    return attempts


def test_of_many_threads_one_creates_the_file(shared_folder: Folder) -> None:
    for name in range(5):
        with ThreadPoolExecutor(12) as pool:
            create = partial(_create, f"{shared_folder.root}/{name}")
            won = list(pool.map(create, range(12)))
        assert sum(won) == 1
        assert (shared_folder / f"{name}").read("lease") == str(won.index(True)).encode()


def test_of_many_processes_one_creates_the_file(shared_folder: Folder) -> None:
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        leases = [pool.submit(_create, shared_folder.root, writer) for writer in range(8)]
        others = [pool.submit(_write_new, shared_folder.root, writer) for writer in range(8)]
        won = [lease.result() for lease in leases]
        wrote = [other.result() for other in others]
    assert sum(won) == sum(wrote) == 1
    assert shared_folder.read("lease") == str(won.index(True)).encode()
    assert shared_folder.read("new") == str(wrote.index(True)).encode() * 1000


def test_swaps_lose_no_update(shared_folder: Folder) -> None:
    shared_folder.write("counter", b"0")
    with ThreadPoolExecutor(6) as pool:
        attempts = list(pool.map(lambda _: _count_up(shared_folder.root, 5), range(6)))
    assert shared_folder.read("counter") == b"30"
    assert sum(attempts) >= 30


def test_file_systems_without_hard_links_use_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda writer: _create(str(tmp_path), writer), range(8)))
    assert sum(won) == 1
    assert Folder(str(tmp_path)).names(suffix=PARTIAL) == []


def test_create_fails_if_another_writer_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another creates and swaps the file while we flush ours, and deletes our partial file."""
    folder, flush = Folder(str(tmp_path)), disk.flush

    def flush_late(partial: Path) -> None:
        monkeypatch.setattr(disk, "flush", flush)
        assert folder.create("a", b"theirs")
        assert folder.swap("a", b"theirs, renewed", folder.read_tagged("a")[1])
        flush(partial)

    monkeypatch.setattr(disk, "flush", flush_late)
    assert not folder.create("a", b"ours")
    assert folder.read("a") == b"theirs, renewed"


def test_slow_disk_does_not_block_another_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a suspended process: another writer swaps meanwhile, and the first swap fails."""
    folder, flush = Folder(str(tmp_path)), disk.flush
    folder.write("a", b"1")
    tag = folder.read_tagged("a")[1]

    def flush_late(partial: Path) -> None:
        monkeypatch.setattr(disk, "flush", flush)
        assert folder.swap("a", b"theirs", tag)
        flush(partial)

    monkeypatch.setattr(disk, "flush", flush_late)
    assert folder.swap("a", b"ours", tag) is None
    assert folder.read("a") == b"theirs"
    assert folder.names(suffix=PARTIAL) == []


def test_next_swap_deletes_partial_files_of_killed_writers(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a", b"1")
    (tmp_path / f".a.0123{PARTIAL}").write_bytes(b"half")
    assert folder.swap("a", b"2", folder.read_tagged("a")[1])
    assert folder.names(suffix=PARTIAL) == []


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest parts that S3 accepts: 5 MiB."""
    monkeypatch.setattr(s3_writes, "PART_BYTES", 5 << 20)


@pytest.mark.usefixtures("small_parts")
def test_large_files_are_written_once_and_complete(s3_folder: str, tmp_path: Path) -> None:
    folder = Folder(f"{s3_folder}/folder")
    content = os.urandom(27 << 20)
    with folder.writing("large", if_version=ABSENT) as path:
        path.write_bytes(content)
        assert not folder.exists("large")
    assert folder.read("large") == content
    assert folder.identity("large") == folder.listing()["large"] == folder.read_tagged("large")[1]

    def write_again() -> None:
        with folder.writing("large", if_version=ABSENT) as path:
            path.write_bytes(b"2" * (11 << 20))

    with pytest.raises(FileExistsError, match="large exists already"):
        write_again()
    assert folder.identity("large") == folder.listing()["large"]
    folder.copy("large", Folder(str(tmp_path)))
    assert (tmp_path / "large").read_bytes() == content
    bucket, _, prefix = folder.root.removeprefix("s3://").partition("/")
    uploads = s3_files().call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
    assert "Uploads" not in uploads
    with folder.writing("large") as path:
        path.write_bytes(b"2" * (11 << 20))
    assert folder.read("large") == b"2" * (11 << 20)


def test_empty_files_are_written_read_and_copied(folder: Folder, tmp_path: Path) -> None:
    folder.write("a", b"")
    assert folder.read("a") == b""
    assert folder.create("b", b"")
    folder.copy("a", Folder(str(tmp_path / "copy")))
    assert (tmp_path / "copy" / "a").read_bytes() == b""


def test_write_replaces_only_the_given_version(folder: Folder) -> None:
    first = folder.version("a/table")
    assert first == ABSENT
    with folder.writing("a/table", if_version=first) as path:
        path.write_bytes(b"1")
    second = folder.version("a/table")
    with folder.writing("a/table", if_version=second) as path:
        path.write_bytes(b"22")  # another size, since timestamps of disks are coarse
    assert folder.version("a/table") not in (first, second)
    for stale in (first, second):
        with pytest.raises(FileExistsError), folder.writing("a/table", if_version=stale) as path:
            path.write_bytes(b"late")
    assert folder.read("a/table") == b"22"
    latest = folder.version("a/table")
    folder.delete("a/table")
    with pytest.raises(FileExistsError, match="changed or deleted"):
        _write(folder, "a/table", if_version=latest)
    assert folder.names("a") == []


def _write(folder: Folder, name: str, if_version: str) -> None:
    with folder.writing(name, if_version) as path:
        path.write_bytes(b"late")


def test_multipart_upload_replaces_only_the_given_version(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_writes, "PART_BYTES", 5 << 20)
    folder, long_content = Folder(s3_folder), bytes(6 << 20)
    folder.write("table", b"1")
    version = folder.version("table")
    with folder.writing("table", if_version=version) as path:
        path.write_bytes(long_content)
    with pytest.raises(FileExistsError), folder.writing("table", if_version=version) as path:
        path.write_bytes(long_content)
    with folder.writing("table", if_version=folder.version("table")) as path:
        path.write_bytes(b"2")
    assert folder.read("table") == b"2"
