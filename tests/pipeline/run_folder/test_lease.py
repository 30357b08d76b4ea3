"""The lease: one holder, renewal, takeover, epochs, and what a lost one may no longer do."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omnitrace_core.errors import LeaseHeld, LeaseLost, RunError, StoreUnavailable
from pipeline.run_folder.lease import LEASE, Lease, acquire, check_claim, holding
from pipeline.storage.folder import Folder

TTL = 30.0


class Clock:
    """A clock that runs when somebody sleeps; `while_asleep` is called at each sleep."""

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
def clock() -> Iterator[Clock]:
    return Clock()


def take(folder: Folder, clock: Clock, take: bool = False) -> Lease:
    return acquire(folder, TTL, take=take, clock=clock, sleep=clock.sleep)


def told(folder: Folder) -> dict[str, object]:
    found: dict[str, object] = json.loads(folder.read(LEASE))
    return found


def from_elsewhere(folder: Folder, **changes: object) -> None:
    """Make the lease that of another machine, where nobody can look whether its process lives."""
    folder.write(LEASE, json.dumps({**told(folder), "machine": "other", **changes}).encode())


def test_first_holder_has_epoch_one_and_each_next_one_more(folder: Folder, clock: Clock) -> None:
    for epoch in (1, 2, 3):
        lease = take(folder, clock)
        assert lease.epoch == epoch
        lease.check()
        check_claim(folder, lease.claim)
        lease.release()
        assert told(folder)["released"] is True
        with pytest.raises(LeaseLost, match=f"epoch {epoch} may not commit"):
            check_claim(folder, lease.claim)


def test_silent_holder_is_taken_over_after_its_time_to_live(folder: Folder, clock: Clock) -> None:
    first = take(folder, clock)
    from_elsewhere(folder)
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


def test_holder_that_shows_life_is_left_alone(folder: Folder, clock: Clock) -> None:
    first = take(folder, clock)
    from_elsewhere(folder)
    beats = iter(range(1, 100))
    clock.while_asleep = lambda: from_elsewhere(folder, renewed_at=time.time() + next(beats))
    before = clock.now
    with pytest.raises(LeaseHeld, match=r"being worked on by process \d+ on .* --break-lease"):
        take(folder, clock)
    assert clock.now - before < TTL
    assert first.epoch == 1


def test_first_look_that_takes_long_is_not_silence(
    folder: Folder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that throttles may answer a minute later with what was written a second ago."""
    take(folder, clock)
    from_elsewhere(folder)
    read_tagged, slow = Folder.read_tagged, iter([2 * TTL])

    def slowly(storage: Folder, name: str) -> tuple[bytes, str]:
        clock.now += next(slow, 0.0)
        return read_tagged(storage, name)

    monkeypatch.setattr(Folder, "read_tagged", slowly)
    beats = iter(range(1, 100))
    clock.while_asleep = lambda: (
        from_elsewhere(folder, renewed_at=time.time() + next(beats)) if clock.now > 170 else None
    )
    with pytest.raises(LeaseHeld):
        take(folder, clock)


def test_lease_can_be_broken(folder: Folder, clock: Clock) -> None:
    first = take(folder, clock)
    before = clock.now
    second = take(folder, clock, take=True)
    assert (second.epoch, clock.now) == (2, before)
    first.renew()
    with pytest.raises(LeaseLost, match=r"held by process \d+ .*epoch 2"):
        first.check()
    # What is lost cannot be given back in another's name.
    first.release()
    second.renew()
    second.check()
    assert told(folder)["released"] is False


def test_dead_process_of_this_machine_is_not_waited_for(folder: Folder, clock: Clock) -> None:
    child = multiprocessing.get_context("spawn").Process(
        target=_take_and_die, args=(folder.root,), daemon=True
    )
    child.start()
    child.join(60)
    assert told(folder)["pid"] == child.pid
    before = clock.now
    assert take(folder, clock).epoch == 2
    assert clock.now == before


def _take_and_die(root: str) -> None:
    acquire(Folder(root), TTL).start()
    os._exit(1)


def test_what_was_left_long_ago_is_not_waited_for(folder: Folder, clock: Clock) -> None:
    take(folder, clock)
    from_elsewhere(folder, renewed_at=time.time() - TTL - 400)
    before = clock.now
    assert take(folder, clock).epoch == 2
    assert clock.now == before


def test_many_at_once_and_one_has_it(folder: Folder) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        taken = pool.map(_try, [folder.root] * 8)
    assert sorted(epoch for epoch in taken if epoch) == list(range(1, len(taken) + 1))


def _try(root: str) -> int:
    """Take the lease however long it takes; at no time do two hold it."""
    folder = Folder(root)
    while True:
        try:
            with holding(folder, 20) as lease:
                assert folder.create("held", b"")
                time.sleep(0.05)
                lease.check()
                folder.delete("held")
                return lease.epoch
        except LeaseHeld:
            continue


def test_it_is_renewed_behind_the_scenes(folder: Folder) -> None:
    with holding(folder, 1.2) as lease:
        first = told(folder)["renewed_at"]
        time.sleep(1.5)
        assert told(folder)["renewed_at"] != first
        lease.check()


def test_storage_that_fails_loses_the_lease_only_after_its_time(
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
    # Nobody took it meanwhile, and the storage is back: it is still ours.
    monkeypatch.undo()
    lease.check()
    lease.confirm()


def test_spoilt_lease_says_so(folder: Folder, clock: Clock) -> None:
    folder.write(LEASE, b"{}")
    with pytest.raises(RunError, match=r"is not a lease .* delete it and run again"):
        take(folder, clock)


def test_lease_that_was_deleted_is_lost(folder: Folder, clock: Clock) -> None:
    lease = take(folder, clock)
    folder.delete(LEASE)
    lease.renew()
    with pytest.raises(LeaseLost, match="the lease object is gone"):
        lease.check()


def test_answers_that_are_lost_do_not_lose_the_lease(
    folder: Folder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(folder, clock).release()
    swap = Folder.swap

    def unheard(*given: object) -> None:
        swap(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Folder, "swap", unheard)
    lease = take(folder, clock)
    assert lease.epoch == 2
    lease.renew()
    lease.check()
    monkeypatch.undo()
    lease.renew()
    lease.check()
    lease.release()
    assert told(folder)["released"] is True


def test_lease_is_given_back_behind_a_heartbeat_that_came_late(
    folder: Folder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = take(folder, clock)
    swap = Folder.swap

    def given_up(storage: Folder, name: str, content: bytes, tag: str, within_s: float) -> str:
        # It is written all the same, after the writer has stopped to wait for it.
        swap(storage, name, content, tag, within_s)
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "swap", given_up)
        with pytest.raises(StoreUnavailable):
            lease.renew()
    lease.release()
    assert told(folder)["released"] is True


def test_heartbeat_outlives_what_nobody_foresaw(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = Folder.swap
    failures = iter([RuntimeError("odd"), RunError("odd")])

    def odd(*given: object) -> object:
        for failure in failures:
            raise failure
        return swap(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Folder, "swap", odd)
    with holding(folder, 0.6) as lease:
        time.sleep(1.5)
        lease.confirm()


def test_new_lease_after_the_old_one_was_deleted_is_another(folder: Folder, clock: Clock) -> None:
    first = take(folder, clock)
    folder.delete(LEASE)
    second = take(folder, clock)
    assert (first.epoch, second.epoch) == (1, 1)
    second.confirm()
    with pytest.raises(LeaseLost, match="is held by"):
        first.confirm()
    with pytest.raises(LeaseLost, match="may not commit"):
        check_claim(folder, first.claim)
