"""Writes that succeed only if nobody was faster."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from omnitrace_core.storage import s3
from omnitrace_core.storage.files import s3_files
from pipeline.storage import disk
from pipeline.storage.folder import ABSENT, PARTIAL, Folder

_MEMORY = "memory"


@pytest.fixture(params=["local", _MEMORY, "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == _MEMORY:
        yield Folder(f"memory://{tmp_path.name}/folder")
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]
    elif request.param == "local":
        yield Folder(str(tmp_path / "folder"))
    else:
        yield Folder(f"{request.getfixturevalue('s3_folder')}/folder")


def test_it_is_told_whether_the_store_keeps_the_promise(storage: Folder) -> None:
    assert storage.is_conditional == (not storage.root.startswith(_MEMORY))


def test_only_the_first_creates(storage: Folder) -> None:
    assert storage.create("a/lease.json", b"first")
    assert not storage.create("a/lease.json", b"second")
    assert storage.read("a/lease.json") == b"first"
    storage.delete("a/lease.json")
    assert storage.create("a/lease.json", b"third")
    assert storage.names("a") == ["lease.json"]


def test_a_swap_needs_the_tag_of_what_is_there(storage: Folder) -> None:
    storage.write("a", b"1")
    content, tag = storage.read_tagged("a")
    assert content == b"1"
    new = storage.swap("a", b"2", tag)
    assert new is not None
    assert storage.read_tagged("a") == (b"2", new)
    assert storage.swap("a", b"3", tag) is None
    assert storage.read("a") == b"2"
    storage.delete("a")
    assert storage.swap("a", b"3", new) is None
    assert not storage.exists("a")
    assert storage.swap("no/such", b"3", new) is None
    with pytest.raises(FileNotFoundError):
        storage.read_tagged("a")


def test_the_tag_that_create_makes_is_the_one_to_swap(storage: Folder) -> None:
    storage.create("a", b"1")
    tag = storage.read_tagged("a")[1]
    for step in range(3):
        tag = storage.swap("a", f"{step}".encode(), tag) or ""
        assert tag
    assert storage.read("a") == b"2"


def test_a_part_is_not_written_over(storage: Folder) -> None:
    with storage.writing("a/part", over=ABSENT) as path:
        path.write_bytes(b"first")

    def again() -> None:
        with storage.writing("a/part", over=ABSENT) as path:
            path.write_bytes(b"second")

    with pytest.raises(FileExistsError, match=f"{storage.root}/a/part is there already"):
        again()
    assert storage.read("a/part") == b"first"
    assert storage.names("a") == ["part"]


def test_an_error_within_a_create_only_write_is_that_error(storage: Folder) -> None:
    def fail() -> None:
        with storage.writing("a", over=ABSENT):
            raise FileExistsError("of the caller")

    with pytest.raises(FileExistsError, match="of the caller"):
        fail()
    assert not storage.exists("a")


# --- races ---------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    place = tmp_path if request.param == "local" else request.getfixturevalue("s3_folder")
    return Folder(f"{place}/folder")


def _create(root: str, who: int) -> bool:
    return Folder(root).create("lease", f"{who}".encode())


def _write_part(root: str, who: int) -> bool:
    try:
        with Folder(root).writing("part", over=ABSENT) as path:
            path.write_bytes(f"{who}".encode() * 1000)
    except FileExistsError:
        return False
    return True


def _count_up(root: str, times: int) -> int:
    """Add to a counter by swaps; how many attempts that took."""
    storage, attempts = Folder(root), 0
    for _ in range(times):
        while True:
            content, tag = storage.read_tagged("counter")
            attempts += 1
            if storage.swap("counter", str(int(content) + 1).encode(), tag):
                break
    return attempts


def test_of_many_threads_one_creates(shared: Folder) -> None:
    for name in range(5):
        with ThreadPoolExecutor(12) as pool:
            won = list(pool.map(lambda who: _create(f"{shared.root}/{name}", who), range(12)))  # noqa: B023
        assert sum(won) == 1
        assert (shared / f"{name}").read("lease") == str(won.index(True)).encode()


def test_of_many_processes_one_creates(shared: Folder) -> None:
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        leases = [pool.submit(_create, shared.root, who) for who in range(8)]
        parts = [pool.submit(_write_part, shared.root, who) for who in range(8)]
        won = [lease.result() for lease in leases]
        wrote = [part.result() for part in parts]
    assert sum(won) == sum(wrote) == 1
    assert shared.read("lease") == str(won.index(True)).encode()
    assert shared.read("part") == str(wrote.index(True)).encode() * 1000


def test_swaps_lose_no_update(shared: Folder) -> None:
    shared.write("counter", b"0")
    with ThreadPoolExecutor(6) as pool:
        attempts = list(pool.map(lambda _: _count_up(shared.root, 5), range(6)))
    assert shared.read("counter") == b"30"
    assert sum(attempts) >= 30


# --- local disks ---------------------------------------------------------------------------------


def test_disks_without_hard_links_lock_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda who: _create(str(tmp_path), who), range(8)))
    assert sum(won) == 1
    assert Folder(str(tmp_path)).names(suffix=PARTIAL) == []


def test_who_is_overtaken_while_it_creates_has_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another creates and swaps while we flush ours, and sweeps what is left of dead writers."""
    storage, flush = Folder(str(tmp_path)), disk.flush

    def slowly(partial: Path) -> None:
        monkeypatch.setattr(disk, "flush", flush)
        assert storage.create("a", b"theirs")
        assert storage.swap("a", b"theirs, renewed", storage.read_tagged("a")[1])
        flush(partial)

    monkeypatch.setattr(disk, "flush", slowly)
    assert not storage.create("a", b"ours")
    assert storage.read("a") == b"theirs, renewed"


def test_a_disk_that_is_slow_to_swap_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a process that sleeps there: another swaps meanwhile, and the first has lost."""
    storage, flush = Folder(str(tmp_path)), disk.flush
    storage.write("a", b"1")
    tag = storage.read_tagged("a")[1]

    def slowly(partial: Path) -> None:
        monkeypatch.setattr(disk, "flush", flush)
        assert storage.swap("a", b"theirs", tag)
        flush(partial)

    monkeypatch.setattr(disk, "flush", slowly)
    assert storage.swap("a", b"ours", tag) is None
    assert storage.read("a") == b"theirs"
    assert storage.names(suffix=PARTIAL) == []


def test_what_dead_writers_left_goes_with_the_next_swap(tmp_path: Path) -> None:
    storage = Folder(str(tmp_path))
    storage.write("a", b"1")
    (tmp_path / f".a.0123{PARTIAL}").write_bytes(b"half")
    assert storage.swap("a", b"2", storage.read_tagged("a")[1])
    assert storage.names(suffix=PARTIAL) == []


# --- uploads in parts ----------------------------------------------------------------------------


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 takes parts of 5 MiB and more."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)


@pytest.mark.usefixtures("small_parts")
def test_large_parts_are_written_once_and_whole(s3_folder: str, tmp_path: Path) -> None:
    storage = Folder(f"{s3_folder}/folder")
    content = os.urandom(27 << 20)
    with storage.writing("part", over=ABSENT) as path:
        path.write_bytes(content)
        assert not storage.exists("part")
    assert storage.read("part") == content
    assert storage.identity("part") == storage.listing()["part"] == storage.read_tagged("part")[1]

    def again() -> None:
        with storage.writing("part", over=ABSENT) as path:
            path.write_bytes(b"2" * (11 << 20))

    with pytest.raises(FileExistsError, match="part is there already"):
        again()
    assert storage.identity("part") == storage.listing()["part"]
    storage.copy("part", Folder(str(tmp_path)))
    assert (tmp_path / "part").read_bytes() == content
    bucket, _, prefix = storage.root.removeprefix("s3://").partition("/")
    uploads = s3_files().call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
    assert "Uploads" not in uploads
    with storage.writing("part") as path:
        path.write_bytes(b"2" * (11 << 20))
    assert storage.read("part") == b"2" * (11 << 20)


def test_empty_files_come_and_go(storage: Folder, tmp_path: Path) -> None:
    storage.write("a", b"")
    assert storage.read("a") == b""
    assert storage.create("b", b"")
    storage.copy("a", Folder(str(tmp_path / "copy")))
    assert (tmp_path / "copy" / "a").read_bytes() == b""


def test_a_file_is_replaced_only_as_the_version_it_was(storage: Folder) -> None:
    first = storage.version("a/table")
    assert first == ABSENT
    with storage.writing("a/table", over=first) as path:
        path.write_bytes(b"1")
    second = storage.version("a/table")
    with storage.writing("a/table", over=second) as path:
        path.write_bytes(b"22")  # another size: clocks of disks tick slowly
    assert storage.version("a/table") not in (first, second)
    for stale in (first, second):
        with pytest.raises(FileExistsError), storage.writing("a/table", over=stale) as path:
            path.write_bytes(b"late")
    assert storage.read("a/table") == b"22"
    latest = storage.version("a/table")
    storage.delete("a/table")
    with pytest.raises(FileExistsError, match="changed or deleted"):
        _write(storage, "a/table", over=latest)
    assert storage.names("a") == []


def _write(storage: Folder, name: str, over: str) -> None:
    with storage.writing(name, over) as path:
        path.write_bytes(b"late")


def test_an_upload_in_parts_replaces_only_what_it_was(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    storage, long = Folder(s3_folder), bytes(6 << 20)
    storage.write("table", b"1")
    seen = storage.version("table")
    with storage.writing("table", over=seen) as path:
        path.write_bytes(long)
    with pytest.raises(FileExistsError), storage.writing("table", over=seen) as path:
        path.write_bytes(long)
    with storage.writing("table", over=storage.version("table")) as path:
        path.write_bytes(b"2")
    assert storage.read("table") == b"2"
