"""Folder on S3 when the network and the server do what they do on bad days."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.errors import ConfigError, StoreCredentials, StoreUnavailable
from omnitrace_core.storage import s3, s3_retries
from omnitrace_core.storage.files import open_file, s3_files
from pipeline.storage.folder import ABSENT, Folder
from tests.pipeline.storage.faulty_proxy import FAULTS, Fault, Proxy, Rule

_BIG = bytes(range(256)) * (11 << 8)  # 704 KiB: one request
_LONG = bytes(range(256)) * (21 << 10)  # 5.25 MiB: an upload in two parts, as S3 takes no smaller


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)


@pytest.fixture
def storage(s3_folder: str, proxy: Proxy) -> Folder:
    return _fill(Folder(f"{s3_folder}/here"), proxy)


def _fill(storage: Folder, proxy: Proxy) -> Folder:
    """`a`, `folder/x`, `folder/y`, `big` and nothing else; counts and rules are at zero."""
    proxy.clear()
    storage.delete_folder("")
    for name, content in {"a": b"1", "folder/x": b"x", "folder/y": b"y", "big": _BIG}.items():
        storage.write(name, content)
    proxy.clear()
    return storage


def _writing(storage: Folder, name: str, content: bytes, over: str | None) -> bytes:
    with storage.writing(name, over) as path:
        path.write_bytes(content)
    return storage.read(name)


def _swap(storage: Folder) -> tuple[bool, bytes]:
    new = storage.swap("a", b"2", storage.read_tagged("a")[1])
    return new == storage.read_tagged("a")[1], storage.read("a")


def _done(do: Callable[[], object], storage: Folder) -> list[str]:
    do()
    return storage.tree("")


def _copy(storage: Folder, to: Path) -> bool:
    storage.copy("big", Folder(str(to)))
    return (to / "big").read_bytes() == _BIG


def _ranges(storage: Folder) -> list[bytes]:
    with storage.open("big") as file:
        file.seek(500_001)
        first = file.read(3)
        file.seek(-2, 2)
        return [first, file.read()]


OPERATIONS: dict[str, tuple[Callable[[Folder, Path], object], object]] = {
    "names": (lambda s, _: s.names("folder"), ["x", "y"]),
    "listing": (lambda s, _: sorted(s.listing("folder")), ["x", "y"]),
    "tree": (lambda s, _: s.tree(""), ["a", "big", "folder/x", "folder/y"]),
    "is_file": (lambda s, _: (s.is_file("a"), s.is_file("folder"), s.is_file("b")), (1, 0, 0)),
    "exists": (lambda s, _: (s.exists("a"), s.exists("folder"), s.exists("b")), (1, 1, 0)),
    "identity": (lambda s, _: s.identity("a"), "c4ca4238a0b923820dcc509a6f75849b"),
    "read": (lambda s, _: s.read("big"), _BIG),
    "read_tagged": (lambda s, _: s.read_tagged("a"), (b"1", "c4ca4238a0b923820dcc509a6f75849b")),
    "open": (lambda s, _: _ranges(s), [_BIG[500_001:500_004], _BIG[-2:]]),
    "write": (lambda s, _: _writing(s, "a", b"2", None), b"2"),
    "write in parts": (lambda s, _: _writing(s, "new", _LONG, None), _LONG),
    "only new": (lambda s, _: _writing(s, "new", b"2", ABSENT), b"2"),
    "only new in parts": (lambda s, _: _writing(s, "new", _LONG, ABSENT), _LONG),
    "create": (lambda s, _: (s.create("new", b"2"), s.create("a", b"2")), (True, False)),
    "swap": (lambda s, _: _swap(s), (True, b"2")),
    "copy": (_copy, True),
    "delete": (lambda s, _: _done(lambda: s.delete("a"), s), ["big", "folder/x", "folder/y"]),
    "delete_many": (lambda s, _: _done(lambda: s.delete_many(["a", "no"]), s)[0], "big"),
    "delete_folder": (lambda s, _: _done(lambda: s.delete_folder("folder"), s), ["a", "big"]),
}


_KINDS = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "GetObject")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_comes_through_every_fault(
    operation: str, storage: Folder, proxy: Proxy, tmp_path: Path
) -> None:
    """The first requests of the operation fail twice, and then the first ones of each kind."""
    do, expected = OPERATIONS[operation]
    for fault in FAULTS:
        _fill(storage, proxy)
        proxy.rules += [Rule(fault, kind, times=2) for kind in ("", *_KINDS)]
        assert do(storage, tmp_path / fault) == expected, fault
        assert proxy.faults[fault] >= (1 if fault == "slow" else 2)


def test_a_server_that_is_slow_is_waited_for(
    storage: Folder, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.rules.append(Rule("slow", times=1, delay_s=1.0))
    assert storage.read("a") == b"1"
    assert proxy.asked["GetObject"] == 1
    proxy.rules.append(Rule("slow", times=1, delay_s=7.0))  # beyond the time to read
    assert storage.read("a") == b"1"
    assert proxy.asked["GetObject"] == 3


# --- what was done although no answer said so ----------------------------------------------------

_UNSAID: list[Fault] = ["drop_after", "broken_after", "drop_within"]


@pytest.mark.parametrize("fault", _UNSAID)
def test_a_create_whose_answer_was_lost_is_ours(
    fault: Fault, storage: Folder, proxy: Proxy
) -> None:
    proxy.rules.append(Rule(fault, "PutObject", times=1))
    assert storage.create("lease", b"same")
    assert proxy.forwarded["PutObject"] == 2
    # Of the same content, but another's.
    proxy.rules.append(Rule(fault, "PutObject", times=1))
    assert not storage.create("lease", b"same")


@pytest.mark.parametrize("fault", _UNSAID)
def test_a_swap_whose_answer_was_lost_is_ours(fault: Fault, storage: Folder, proxy: Proxy) -> None:
    tag = storage.read_tagged("a")[1]
    proxy.rules.append(Rule(fault, "PutObject", times=1))
    new = storage.swap("a", b"2", tag)
    assert new == storage.read_tagged("a")[1] != tag
    proxy.rules.append(Rule(fault, "PutObject", times=1))
    assert storage.swap("a", b"2", tag) is None
    assert storage.read("a") == b"2"


@pytest.mark.parametrize("fault", _UNSAID)
def test_an_upload_whose_completion_was_lost_is_ours(
    fault: Fault, storage: Folder, proxy: Proxy
) -> None:
    proxy.rules.append(Rule(fault, "CompleteMultipartUpload", times=1))
    assert _writing(storage, "part", _LONG, over=ABSENT) == _LONG
    proxy.rules.append(Rule(fault, "CompleteMultipartUpload", times=1))
    with pytest.raises(FileExistsError, match="part is there already"):
        _writing(storage, "part", _LONG, over=ABSENT)
    proxy.rules.append(Rule(fault, "CompleteMultipartUpload", times=1))
    assert _writing(storage, "part", _LONG[::-1], over=None) == _LONG[::-1]
    bucket, _, prefix = storage.root.removeprefix("s3://").partition("/")
    uploads = s3_files().call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
    assert "Uploads" not in uploads


def test_races_have_one_winner_on_a_bad_network(storage: Folder, proxy: Proxy) -> None:
    for fault in (*_UNSAID, "drop_before", "slow_down"):
        proxy.rules.append(Rule(fault, share=0.08))
    for turn in range(6):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda who: storage.create(f"{turn}", b"%d" % who), range(8)))  # noqa: B023
        assert sum(won) == 1
        assert storage.read(f"{turn}") == b"%d" % won.index(True)
    storage.write("counter", b"0")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _count_up(storage, 5), range(4)))
    # No update is lost; one whose answer was, and that was built upon since, is told to be undone.
    assert int(storage.read("counter")) >= 20
    assert proxy.faults.total() > 10


def _count_up(storage: Folder, times: int) -> None:
    while times:
        content, tag = storage.read_tagged("counter")
        times -= storage.swap("counter", b"%d" % (int(content) + 1), tag) is not None


# --- what cannot be mended -----------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_never_recovers_is_given_up(
    operation: str, storage: Folder, proxy: Proxy, tmp_path: Path
) -> None:
    for fault in ("slow_down", "drop_before", "drop_within"):
        proxy.clear()
        proxy.rules.append(Rule(fault))
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"s3://\S+: .* in 6 tries .*AWS_ENDPOINT_URL"):
            OPERATIONS[operation][0](storage, tmp_path)
        assert time.monotonic() - began < 10
        # aiohttp repeats a request of its own accord where a connection it kept was closed.
        assert proxy.asked.total() <= 12


def test_time_is_bounded_too(
    storage: Folder, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = s3_retries.Retries(tries=1000, total_s=1.5, first_wait_s=0.1, longest_wait_s=0.3)
    monkeypatch.setattr(s3_retries, "RETRIES", patient)
    proxy.rules.append(Rule("slow_down"))
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"last error: SlowDown"):
        storage.read("a")
    assert 0.5 < time.monotonic() - began < 4
    assert proxy.asked["GetObject"] > 3


def test_nobody_there(s3_folder: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match=r"EndpointConnectionError.*AWS_ENDPOINT_URL"):
        Folder(s3_folder).names()


def test_answers_that_stay_are_not_asked_for_again(storage: Folder, proxy: Proxy) -> None:
    with pytest.raises(FileNotFoundError, match=r"s3://\S+/here/nothing: no such object"):
        storage.read("nothing")
    assert not storage.create("a", b"2")
    assert proxy.asked == {"GetObject": 1, "PutObject": 1, "HeadObject": 1}
    with pytest.raises(FileNotFoundError, match="s3://no-such-bucket/a: no such bucket; create it"):
        Folder("s3://no-such-bucket").write("a", b"")
    assert Folder("s3://no-such-bucket").names() == []
    assert not Folder("s3://no-such-bucket").exists()


def test_credentials_that_are_missing(
    storage: Folder, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreCredentials, match="AWS_ACCESS_KEY_ID") as caught:
        Folder(storage.root).read("a")
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, PermissionError)
    assert proxy.asked.total() == 0


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_credentials_that_are_refused(
    wrong: str, storage: Folder, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(wrong, "the-wrong-one")
    with pytest.raises(StoreCredentials, match="does not accept the credentials") as caught:
        Folder(storage.root).names()
    assert "the-wrong-one" not in str(caught.value)
    assert proxy.asked.total() == 1


def test_an_address_that_cannot_be(
    s3_folder: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="Invalid bucket name"):
        Folder("s3://not a bucket/x").names()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
    with pytest.raises(ConfigError, match="Invalid endpoint"):
        Folder(s3_folder).names()


# --- Parquet -------------------------------------------------------------------------------------


def test_parquet_is_read_across_broken_connections(storage: Folder, proxy: Proxy) -> None:
    table = pa.table({"x": np.random.default_rng(0).random(200_000)})
    with storage.writing("t.parquet") as path:
        pq.write_table(table, path, row_group_size=20_000)
    proxy.rules += [Rule("drop_within", share=0.3), Rule("slow_down", share=0.2)]
    for _ in range(5):
        with storage.open("t.parquet") as file, pq.ParquetFile(file) as stored:
            groups = [stored.read_row_group(index) for index in range(stored.num_row_groups)]
        assert pa.concat_tables(groups).equals(table)
        with open_file(storage.url("t.parquet")) as file:
            assert pq.read_table(file, columns=["x"]).equals(table)
    assert proxy.faults.total() > 3


def test_a_file_that_changes_under_a_reader_is_an_error(storage: Folder) -> None:
    with storage.open("big") as file:
        storage.write("big", b"2" * len(_BIG))
        with pytest.raises(OSError, match="no longer exists"):
            file.read()


def test_a_swap_may_take_no_longer_than_it_is_given(storage: Folder, proxy: Proxy) -> None:
    tag = storage.read_tagged("a")[1]
    proxy.rules.append(Rule("slow", "PutObject", times=1, delay_s=6))
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"/here/a: .* did not answer within 0\.3 s"):
        storage.swap("a", b"2", tag, 0.3)
    assert time.monotonic() - begun < 5
    assert storage.swap("a", b"3", tag, 30) is not None
    assert storage.read("a") == b"3"
