"""Runs that another driver takes over, or works on at the same time."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from omnitrace_core.errors import LeaseHeld, LeaseLost, RunError
from pipeline.driver.run import run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.chunk_files import chunk_file_name
from pipeline.run_folder.commit import EPOCH_KEY, CommittedChunk
from pipeline.run_folder.lease import Lease, hold_lease
from pipeline.run_folder.lease_file import LEASE, current_claim
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.verdict import ExitCode, StopReason, VerdictFile, make_verdict
from tests.pipeline.made_runs import (
    ALL_ROWS,
    Worker,
    assert_complete,
    config_for,
    planned_run,
    row_keys,
    rows,
    stored_verdict,
    write_input,
)


def test_chunk_files_and_manifests_carry_the_epoch(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    epochs: list[bytes | None] = []

    def look(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        worker = Worker(planned.folder, claim=current_claim(planned.folder))
        for committed in worker(chunks):
            part = pa.BufferReader(planned.folder.read(chunk_file_name(committed.chunk_key)))
            epochs.append((pa.ipc.open_file(part).schema.metadata or {}).get(EPOCH_KEY))
            yield committed

    with hold_lease(planned.folder, 60):
        pass
    run(planned, look)
    assert set(epochs) == {b"2"}
    assert {item.epoch for item in read_manifests(planned.folder).values()} == {2}
    assert_complete(planned)


def test_run_that_another_driver_works_on_is_left_alone(folder: Path) -> None:
    planned = planned_run(config_for(folder, run={"lease_s": 6}))
    with (
        hold_lease(planned.folder, 6),
        pytest.raises(LeaseHeld, match="is being worked on by process"),
    ):
        run(planned, Worker(planned.folder))
    assert [name for name in planned.folder.tree("") if LEASE not in name] == []
    assert run(planned, Worker(planned.folder)).exit_code == 0
    assert_complete(planned)


def test_driver_whose_lease_is_taken_writes_nothing_more(folder: Path) -> None:
    """The driver itself asks the store before each step, long before the next heartbeat."""
    config = config_for(folder)
    planned = planned_run(config)
    seen: dict[str, str] = {}

    def taken_over(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        for number, committed in enumerate(list(Worker(planned.folder, response="old")(chunks))):
            if number == 2:
                other = planned_run(config)
                run(other, Worker(other.folder, response="new"), take_lease=True)
                seen.update(other.folder.tree_listing(""))
            yield committed

    with pytest.raises(LeaseLost, match=r"lost the lease .*: it is held by"):
        run(planned, taken_over)
    assert planned.folder.tree_listing("") == seen
    assert stored_verdict(planned)["exit_code"] == 0
    assert_complete(planned)


class _SuspendedDriver:
    """A driver that is suspended after its n-th check of the lease; another does all the work."""

    def __init__(
        self,
        folder: Path,
        suspend_after: int,
        started: bool,
        change: Callable[[], None] | None = None,
        **sections: Any,
    ) -> None:
        self.config = config_for(folder, **sections)
        self.suspend_after = suspend_after
        self.change = change
        self.n_checks = 0
        self.planned = planned_run(self.config)
        if started:
            # Something to begin with: a chunk file, and files without a manifest, of a planned
            # shard and of an unknown one.
            chunks = [
                item
                for shard in self.planned.plan.shards
                for item in self.planned.plan.chunks(shard)
            ]
            list(Worker(self.planned.folder)(chunks[2:3]))
            for number in (0, 7):
                name = f"spans/shard-{number:05d}.parquet"
                self.planned.folder.write(name, b"left by a killed writer")

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        confirm = Lease.confirm

        def confirm_and_suspend(lease: Lease) -> None:
            confirm(lease)
            self.n_checks += 1
            if self.n_checks == self.suspend_after:
                with monkeypatch.context() as unpatched:
                    unpatched.setattr(Lease, "confirm", confirm)
                    if self.change is not None:
                        self.change()
                    other = planned_run(self.config)
                    run(other, Worker(other.folder), take_lease=True)

        with monkeypatch.context() as patch:
            patch.setattr(Lease, "confirm", confirm_and_suspend)
            run(self.planned, self._work)

    def _work(self, chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from Worker(self.planned.folder, claim=current_claim(self.planned.folder))(chunks)


@pytest.mark.slow
@pytest.mark.parametrize("started", [False, True])
def test_driver_that_wakes_at_any_step_does_no_harm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    for suspend_after in range(1, 100):
        path = folder / f"suspended{suspend_after}"
        path.mkdir()
        (path / "input").symlink_to(folder / "input")
        driver = _SuspendedDriver(path, suspend_after, started)
        try:
            driver.run(monkeypatch)
        except LeaseLost:
            assert row_keys(driver.planned.folder) == ALL_ROWS, suspend_after
        if driver.n_checks < suspend_after:
            break
        assert stored_verdict(driver.planned)["exit_code"] == 0, suspend_after
        assert_complete(driver.planned)
        # And it leaves nothing to do.
        again = planned_run(driver.config)
        worker = Worker(again.folder)
        assert run(again, worker).exit_code == 0
        assert worker.done == []
        assert stored_verdict(again)["finished"] is True
        assert_complete(again)
    assert 12 < suspend_after < 60


@pytest.mark.slow
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_driver_that_wakes_beside_a_run_of_other_input_adds_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for suspend_after in range(1, 100):
        path = folder / f"suspended{suspend_after}"
        write_input(path / "input", a=["1", "2"], b=["3", "4", "5"], c=["6"])
        output = {} if where == "disk" else {"output": {"path": f"memory:/{path}/output"}}

        def change(source: Path = path / "input") -> None:
            write_input(source, a=["1"], b=["3", "x"], c=[])

        driver = _SuspendedDriver(path, suspend_after, True, change, **output)
        with suppress(LeaseLost):
            driver.run(monkeypatch)
        if driver.n_checks < suspend_after:
            break
        rows_now = ["a.parquet:0", "b.parquet:0", "b.parquet:1"]
        assert row_keys(driver.planned.folder) == rows_now, suspend_after
        assert row_keys(driver.planned.folder, "traces") == rows_now, suspend_after
        manifests = read_manifests(driver.planned.folder).values()
        assert sorted(item.n_rows for item in manifests) == [0, 1, 2]
        assert (
            stored_verdict(driver.planned)["finished"],
            stored_verdict(driver.planned)["n_rows"],
        ) == (
            True,
            3,
        )
    assert 12 < suspend_after < 60


def test_verdict_file_recognises_its_own_writes(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    first = VerdictFile(planned.folder, 1)
    first.write(make_verdict(planned))
    # A write that was interrupted before its version was known.
    late = VerdictFile(planned.folder, 1)
    first.write(make_verdict(planned))
    assert late.write(make_verdict(planned, StopReason(ExitCode.INCOMPLETE, "stopped"))).epoch == 1
    assert stored_verdict(planned)["reason"] == "stopped"
    second = VerdictFile(planned.folder, 2)
    # A late write of an earlier driver must not end the run.
    late.write(make_verdict(planned))
    second.write(make_verdict(planned))
    with pytest.raises(LeaseLost, match="changed or deleted meanwhile by another driver"):
        late.write(make_verdict(planned))
    assert stored_verdict(planned)["epoch"] == 2
    planned.folder.delete("verdict.json")
    second.write(make_verdict(planned))


def test_shard_with_missing_files_is_published_again(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    run(planned, Worker(planned.folder))
    planned.folder.delete("spans/shard-00001.parquet")
    write_input(folder / "input", d=["9"])
    again = planned_run(config_for(folder))
    worker = Worker(again.folder)
    assert run(again, worker).exit_code == 0
    assert len(worker.done) == 3
    assert len(row_keys(again.folder, "spans")) == 10
    assert {item.number for item in read_manifests(again.folder).values()} == {0, 1, 2, 3}


def test_files_that_vanish_during_a_run_make_it_incomplete(folder: Path) -> None:
    planned = planned_run(config_for(folder))

    def vanishing(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        for number, committed in enumerate(Worker(planned.folder)(chunks)):
            if number == 3:
                planned.folder.delete("samples/shard-00000.parquet")
            yield committed

    verdict = run(planned, vanishing)
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "of 1 shard (a.parquet) were removed" in verdict.reason
    assert run(planned_run(config_for(folder)), Worker(planned.folder)).exit_code == 0
    assert_complete(planned)


def test_error_of_an_old_driver_does_not_change_the_verdict_of_a_new_one(folder: Path) -> None:
    planned = planned_run(config_for(folder))

    def broken(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        other = planned_run(config_for(folder))
        run(other, Worker(other.folder), take_lease=True)
        raise OSError("connection lost")
        yield

    with pytest.raises(LeaseLost, match="is held by"):
        run(planned, broken)
    assert stored_verdict(planned)["exit_code"] == 0
    assert_complete(planned)


def test_chunk_file_is_never_replaced(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    chunk = next(planned.plan.chunks(planned.plan.shards[0]))
    first, second = (
        Worker(planned.folder, response="first"),
        Worker(planned.folder, response="second"),
    )
    list(first([chunk]))
    again = list(second([chunk]))
    assert [item.chunk_key for item in again] == [chunk.key]
    run(planned, Worker(planned.folder, response="rest"))
    assert_complete(planned)
    assert {row["text"] for row in rows(planned.folder, "spans")} == {"first", "rest"}


def test_plan_takes_over_numbers_that_others_published_meanwhile(folder: Path) -> None:
    """The run was planned before another driver published, and runs afterwards."""
    config = config_for(folder)
    late = planned_run(config)
    early = planned_run(config)
    write_input(folder / "input", A=["x"])
    other = planned_run(config)
    run(early, Worker(early.folder))
    run(other, Worker(other.folder))
    (folder / "input" / "A.parquet").unlink()
    worker = Worker(late.folder)
    assert run(late, worker).exit_code == 0
    assert worker.done == []
    assert_complete(late)


def test_another_run_date_recorded_meanwhile_is_an_error(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    record = {"run_id": planned.run_id, "run_date": "2025-01-01"}
    planned.identity.output.write(f"_runs/{planned.run_id}.json", json.dumps(record).encode())
    with pytest.raises(RunError, match=r"was begun on 2025-01-01 .* run the same command again"):
        run(planned, Worker(planned.folder))
