"""Locks that a suspended process holds."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from omnitrace_core.errors import LeaseHeld, LeaseLost
from pipeline.driver.run import run
from pipeline.run_folder.lease import acquire_lease, hold_lease
from pipeline.run_folder.lease_file import LEASE
from pipeline.storage import locks
from pipeline.storage.folder import ABSENT, Folder
from pipeline.storage.locks import LockTimeout, file_lock, folder_lock
from tests.pipeline.made_runs import Worker, config_for, planned_run


def _hold(kind: str, target: Path, locked: Connection) -> None:
    lock = file_lock if kind == "file" else folder_lock
    with lock(target):
        locked.send(None)
        signal.pause()


@contextmanager
def _suspended_holder(kind: str, target: Path) -> Iterator[int]:
    """Another process that holds the lock and is suspended; yields its id."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    target.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_hold, args=(kind, target, theirs), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        ours.recv()
        os.kill(process.pid, signal.SIGSTOP)
        yield process.pid
    finally:
        process.kill()
        process.join()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOCK_WAIT_S", 0.3)
    monkeypatch.setattr(locks, "_WARN_AFTER_S", 0.1)


def _swap(folder: Folder) -> None:
    folder.swap("a", b"2", folder.read_tagged("a")[1])


def _replace(folder: Folder) -> None:
    folder.replace("a", b"2", lambda: None)


WAITING: dict[str, tuple[str, Callable[[Folder], None]]] = {
    "swap": ("file", _swap),
    "conditional write": ("folder", _replace),
}


@pytest.mark.parametrize("kind", WAITING)
def test_wait_for_a_suspended_process_ends_and_names_it(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(str(tmp_path / "run"))
    folder.write("a", b"1")
    lock, operation = WAITING[kind]
    target = tmp_path / "run" / "a"
    where = target.with_name(".a.lock") if lock == "file" else target.parent
    with _suspended_holder(lock, target) as pid, caplog.at_level(logging.WARNING):
        with pytest.raises(LockTimeout) as caught:
            operation(folder)
        message = str(caught.value)
        assert message.startswith(f"{where} is locked by process {pid} (")
        assert ", suspended) for more than 0.3 s; resume or end that process" in message
        assert f"waiting for {where}, which is locked by process {pid}" in caplog.text
        assert folder.read("a") == b"1"
        assert folder.tree(".partial") == []
    operation(folder)
    assert folder.read("a") == b"2"


def test_write_of_a_new_file_waits_for_nobody(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    with _suspended_holder("folder", tmp_path / "run" / "a"), folder.writing("a", ABSENT) as path:
        path.write_bytes(b"1")
    assert (tmp_path / "run" / "a").read_bytes() == b"1"


def test_lease_whose_lock_a_suspended_process_holds_is_not_waited_for_without_end(
    folder: Path,
) -> None:
    planned = planned_run(config_for(folder))
    with hold_lease(planned.folder, 60):
        pass
    lock = Path(planned.folder.root, LEASE)
    with (
        _suspended_holder("file", lock) as pid,
        pytest.raises(
            LeaseHeld, match=rf"\._lease\.json\.lock is locked by process {pid} \(.*susp"
        ),
    ):
        run(planned, Worker(planned.folder))
    assert run(planned, Worker(planned.folder)).exit_code == 0


def test_renewal_that_waits_for_a_suspended_process_fails(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    now = [100.0]
    lease = acquire_lease(folder, 30, clock=lambda: now[0])
    with _suspended_holder("file", tmp_path / "run" / LEASE):
        with pytest.raises(LockTimeout):
            lease.renew()
        lease.check()  # still within its time to live
        now[0] += 31
        with pytest.raises(LeaseLost, match=r"not renewed for 31 s \(.*lock is locked by process"):
            lease.check()
        lease.release()
    # The lease is still ours: nobody has taken it.
    lease.check()


def test_process_that_proc_does_not_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    with _suspended_holder("file", target):
        monkeypatch.setattr(locks, "_holder_pid", lambda path: 0)
        with pytest.raises(LockTimeout, match="locked by another process"), file_lock(target):
            pytest.fail("locked twice")
