"""The lease: one holder at a time, renewal, takeover, epochs, and what a lost lease forbids."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnitrace_core.errors import LeaseHeld, LeaseLost, RunError, StoreUnavailable
from pipeline.run_folder.lease import Lease, acquire_lease, hold_lease
from pipeline.run_folder.lease_file import LEASE, check_claim
from pipeline.storage.folder import Folder

TTL = 30.0


class Clock:
    """A clock that advances only by `sleep`; `while_asleep` is called at each sleep."""

    def __init__(self) -> None:
        self.now = 100.0
        self.while_asleep: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.while_asleep()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "run"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def take(folder: Folder, clock: Clock, take_over: bool = False) -> Lease:
    return acquire_lease(folder, TTL, take_over=take_over, clock=clock, sleep=clock.sleep)


def stored(folder: Folder) -> dict[str, object]:
    found: dict[str, object] = json.loads(folder.read(LEASE))
    return found


def move_elsewhere(folder: Folder, **changes: object) -> None:
    """Make the holder a process of another machine, so that nobody can see whether it is alive."""
    folder.write(LEASE, json.dumps({**stored(folder), "machine": "other", **changes}).encode())


def test_each_holder_raises_the_epoch_by_one(folder: Folder, clock: Clock) -> None:
    for epoch in (1, 2, 3):
        lease = take(folder, clock)
        assert lease.epoch == epoch
        lease.check()
        check_claim(folder, lease.claim)
        lease.release()
        assert stored(folder)["released"] is True
        with pytest.raises(LeaseLost, match=f"epoch {epoch} may not commit"):
            check_claim(folder, lease.claim)


def test_silent_holder_is_taken_over_after_its_time_to_live(folder: Folder, clock: Clock) -> None:
    first = take(folder, clock)
    move_elsewhere(folder)
    before = clock.now
    second = take(folder, clock)
    assert second.epoch == 2
    assert TTL < clock.now - before < TTL + 5
    with pytest.raises(LeaseLost, match=r"held by process \d+ .*epoch 2"):
        first.check()
    with pytest.raises(LeaseLost, match=r"held by process \d+ .*epoch 2"):
        first.confirm()
    second.confirm()
    check_claim(folder, second.claim)
    with pytest.raises(LeaseLost, match="epoch 1 may not commit"):
        check_claim(folder, first.claim)


def test_holder_that_renews_is_not_taken_over(folder: Folder, clock: Clock) -> None:
    first = take(folder, clock)
    move_elsewhere(folder)
    renewals = iter(range(1, 100))
    clock.while_asleep = lambda: move_elsewhere(folder, renewed_at=time.time() + next(renewals))
    before = clock.now
    with pytest.raises(LeaseHeld, match=r"being worked on by process \d+ on .* --break-lease"):
        take(folder, clock)
    assert clock.now - before < TTL
    assert first.epoch == 1


def test_slow_first_read_does_not_count_as_silence(
    folder: Folder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that throttles may answer a minute later with what was written a second ago."""
    take(folder, clock)
    move_elsewhere(folder)
    read_tagged, delays = Folder.read_tagged, iter([2 * TTL])

    def read_slowly(self: Folder, name: str) -> tuple[bytes, str]:
        clock.now += next(delays, 0.0)
        return read_tagged(self, name)

    monkeypatch.setattr(Folder, "read_tagged", read_slowly)
    renewals = iter(range(1, 100))
    clock.while_asleep = lambda: (
        move_elsewhere(folder, renewed_at=time.time() + next(renewals)) if clock.now > 170 else None
    )
    with pytest.raises(LeaseHeld):
        take(folder, clock)


def test_lease_can_be_taken_from_a_living_holder(folder: Folder, clock: Clock) -> None:
    first = take(folder, clock)
    before = clock.now
    second = take(folder, clock, take_over=True)
    assert (second.epoch, clock.now) == (2, before)
    first.renew()
    with pytest.raises(LeaseLost, match=r"held by process \d+ .*epoch 2"):
        first.check()
    # Giving back a lost lease does not change the new holder's.
    first.release()
    second.renew()
    second.check()
    assert stored(folder)["released"] is False


def test_no_wait_for_a_dead_process_of_this_machine(folder: Folder, clock: Clock) -> None:
    child = multiprocessing.get_context("spawn").Process(
        target=_take_and_die, args=(folder.root,), daemon=True
    )
    child.start()
    child.join(60)
    assert stored(folder)["pid"] == child.pid
    before = clock.now
    assert take(folder, clock).epoch == 2
    assert clock.now == before


def _take_and_die(root: str) -> None:
    acquire_lease(Folder(root), TTL).start()
    os._exit(1)


def test_no_wait_for_a_lease_abandoned_long_ago(folder: Folder, clock: Clock) -> None:
    take(folder, clock)
    move_elsewhere(folder, renewed_at=time.time() - TTL - 400)
    before = clock.now
    assert take(folder, clock).epoch == 2
    assert clock.now == before


def test_of_many_processes_one_at_a_time_holds_the_lease(folder: Folder) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        epochs = pool.map(_hold_briefly, [folder.root] * 8)
    assert sorted(epoch for epoch in epochs if epoch) == list(range(1, len(epochs) + 1))


def _hold_briefly(root: str) -> int:
    """Take the lease, however long that takes; fail if two processes hold it at once."""
    folder = Folder(root)
    while True:
        try:
            with hold_lease(folder, 20) as lease:
                assert folder.create("held", b"")
                time.sleep(0.05)
                lease.check()
                folder.delete("held")
                return lease.epoch
        except LeaseHeld:
            continue


def test_lease_is_renewed_in_the_background(folder: Folder) -> None:
    with hold_lease(folder, 1.2) as lease:
        first = stored(folder)["renewed_at"]
        time.sleep(1.5)
        assert stored(folder)["renewed_at"] != first
        lease.check()


def test_store_failures_lose_the_lease_only_after_its_time_to_live(
    folder: Folder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = take(folder, clock)

    def unavailable(*_: object) -> None:
        raise OSError("503 SlowDown")

    monkeypatch.setattr(Folder, "swap", unavailable)
    with pytest.raises(OSError, match="SlowDown"):
        lease.renew()
    clock.now += TTL - 1
    lease.check()
    clock.now += 2
    with pytest.raises(LeaseLost, match=r"not renewed for 31 s \(503 SlowDown\)"):
        lease.check()
    # Nobody took it meanwhile, and the store answers again: it is still ours.
    monkeypatch.undo()
    lease.check()
    lease.confirm()


def test_invalid_lease_file_is_reported(folder: Folder, clock: Clock) -> None:
    folder.write(LEASE, b"{}")
    with pytest.raises(RunError, match=r"is not a lease .* delete it and run again"):
        take(folder, clock)


def test_lease_that_was_deleted_is_lost(folder: Folder, clock: Clock) -> None:
    lease = take(folder, clock)
    folder.delete(LEASE)
    lease.renew()
    with pytest.raises(LeaseLost, match="the lease file was deleted"):
        lease.check()


def test_lost_answers_of_the_store_do_not_lose_the_lease(
    folder: Folder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(folder, clock).release()
    swap = Folder.swap

    def swap_without_answer(*args: Any) -> None:
        swap(*args)

    monkeypatch.setattr(Folder, "swap", swap_without_answer)
    lease = take(folder, clock)
    assert lease.epoch == 2
    lease.renew()
    lease.check()
    monkeypatch.undo()
    lease.renew()
    lease.check()
    lease.release()
    assert stored(folder)["released"] is True


def test_lease_is_given_back_after_a_renewal_that_was_written_late(
    folder: Folder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = take(folder, clock)
    swap = Folder.swap

    def swap_after_timeout(
        self: Folder, name: str, content: bytes, tag: str, within_s: float
    ) -> str:
        # The store does the write after the writer has stopped waiting for it.
        swap(self, name, content, tag, within_s)
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "swap", swap_after_timeout)
        with pytest.raises(StoreUnavailable):
            lease.renew()
    lease.release()
    assert stored(folder)["released"] is True


def test_renewals_go_on_after_an_unexpected_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = Folder.swap
    failures = iter([RuntimeError("unexpected"), RunError("unexpected")])

    def fail_first(*args: Any) -> object:
        for failure in failures:
            raise failure
        return swap(*args)

    monkeypatch.setattr(Folder, "swap", fail_first)
    with hold_lease(folder, 0.6) as lease:
        time.sleep(1.5)
        lease.confirm()


def test_lease_created_after_deletion_has_another_owner(folder: Folder, clock: Clock) -> None:
    first = take(folder, clock)
    folder.delete(LEASE)
    second = take(folder, clock)
    assert (first.epoch, second.epoch) == (1, 1)
    second.confirm()
    with pytest.raises(LeaseLost, match="is held by"):
        first.confirm()
    with pytest.raises(LeaseLost, match="may not commit"):
        check_claim(folder, first.claim)
