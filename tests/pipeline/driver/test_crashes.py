"""Drivers that are killed at every step, and runs that fail."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from omnitrace_core.errors import LeaseLost, RunError, StoreCredentials, StoreUnavailable
from pipeline.driver.run import run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import VERDICT, ExitCode, exit_code_of, is_finished
from pipeline.storage.folder import Folder
from tests.pipeline.made_runs import (
    GOOD_ROWS,
    Worker,
    assert_complete,
    config_for,
    planned_run,
    row_keys,
    rows,
    write_input,
)
from tests.stages.chunks import Killed


def _count_steps(
    planned: PlannedRun, monkeypatch: pytest.MonkeyPatch, die_at: int | None, response: str = ""
) -> list[str]:
    """Run it; die just before its `die_at`-th change of the storage. Returns all changes."""
    steps: list[str] = []

    def counted(change: Callable[..., object], kind: str) -> Callable[..., object]:
        def change_or_die(*args: object, **kwargs: object) -> object:
            steps.append(kind)
            if die_at is not None and len(steps) == die_at:
                raise Killed
            return change(*args, **kwargs)

        return change_or_die

    monkeypatch.setattr("pipeline.storage.local_store.os.replace", counted(os.replace, "write"))
    monkeypatch.setattr("pipeline.storage.local_store.os.link", counted(os.link, "write"))
    monkeypatch.setattr(Folder, "delete_many", counted(Folder.delete_many, "delete"))
    monkeypatch.setattr(Folder, "delete_folder", counted(Folder.delete_folder, "delete"))
    run(planned, Worker(planned.folder, response=response))
    return steps


@pytest.mark.slow
def test_crash_at_any_step_and_rerun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        whole = folder / "whole"
        n_steps = len(
            _count_steps(planned_run(config_for(folder, output={"path": str(whole)})), patch, None)
        )
    assert n_steps > 25
    for die_at in range(1, n_steps + 1):
        config = config_for(folder, output={"path": str(folder / f"crash{die_at}")})
        with monkeypatch.context() as patch, pytest.raises(Killed):
            _count_steps(planned_run(config), patch, die_at)
        planned = planned_run(config)
        verdict = run(planned, Worker(planned.folder))
        assert verdict.exit_code == 0, die_at
        assert_complete(planned)
        assert is_finished(planned_run(config)), die_at


def test_crash_while_a_changed_shard_replaces_its_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    run(planned, Worker(planned.folder, response="old"))
    write_input(folder / "input", a=["1", "2", "3"])
    os.utime(folder / "input" / "a.parquet", (1, 1))
    die_at = 0
    while True:
        die_at += 1
        try:
            with monkeypatch.context() as patch:
                _count_steps(planned_run(config), patch, die_at)
        except Killed:
            # At any step, no span is published twice.
            assert row_keys(planned.folder, "spans") == sorted(GOOD_ROWS * 2)
            continue
        break
    assert_complete(planned)


@pytest.mark.slow
def test_input_that_changes_and_changes_back_is_done_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first manifest must not count for files that a driver replaced before it died."""
    config = config_for(folder)
    planned = planned_run(config)
    shard = folder / "input" / "a.parquet"
    first, second = folder / "first.parquet", folder / "second.parquet"
    shutil.copy2(shard, first)
    run(planned, Worker(planned.folder))
    before = rows(planned.folder, "samples")
    write_input(folder, second=["x", "y", "z"])
    for die_at in count(1):
        shutil.copy2(second, shard)
        try:
            with monkeypatch.context() as patch:
                _count_steps(planned_run(config), patch, die_at)
        except Killed:
            pass
        else:
            break
        shutil.copy2(first, shard)
        planned = planned_run(config)
        assert run(planned, Worker(planned.folder)).finished
        assert_complete(planned)
        assert rows(planned.folder, "samples") == before, die_at
    assert die_at > 10


@pytest.mark.slow
def test_file_that_vanished_leaves_no_mixture_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole shard is done again, even if a driver dies between its files."""
    config = config_for(folder)
    first = planned_run(config)
    run(first, Worker(first.folder, response="0"))
    for die_at in count(1):
        planned = planned_run(config)
        planned.folder.delete("samples/shard-00000.parquet")
        planned.folder.delete(VERDICT)  # there is something to do
        with monkeypatch.context() as patch, suppress(Killed):
            _count_steps(planned_run(config), patch, die_at, response=f"{die_at} dies")
            break
        planned = planned_run(config)
        run(planned, Worker(planned.folder, response=f"{die_at} goes on"))
        assert_complete(planned)
        responses = {row["row_key"]: row["response"] for row in rows(planned.folder, "samples")}
        for span in rows(planned.folder, "spans"):
            assert span["text"] == responses[span["row_key"]], die_at
    assert die_at > 10


def test_broken_stage_is_a_crash_with_its_reason(folder: Path) -> None:
    planned = planned_run(config_for(folder))

    def failing(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        raise RunError("a stage failed: OSError: disk full")
        yield

    with pytest.raises(RunError, match="disk full"):
        run(planned, failing)
    content = json.loads(planned.folder.read("verdict.json"))
    assert (content["exit_code"], content["finished"]) == (1, False)
    assert "disk full" in content["reason"]


def test_cause_of_a_failure_is_raised_though_the_verdict_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planned_run(config_for(folder))

    def failing(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        monkeypatch.setattr(Folder, "writing", _full)
        raise RunError("a stage failed: the model is gone")
        yield

    with pytest.raises(RunError, match="the model is gone"):
        run(planned, failing)


def test_store_that_is_away_for_longer_than_the_lease_is_the_cause_of_the_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planned_run(config_for(folder, run={"lease_s": 1}))

    def failing(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        _let_lease_expire(monkeypatch)
        raise StoreUnavailable("s3://bucket did not answer")
        yield

    with pytest.raises(StoreUnavailable, match="s3://bucket did not answer"):
        run(planned, failing)


def test_driver_that_cannot_renew_its_lease_commits_nothing_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planned_run(config_for(folder, run={"lease_s": 1}))
    before: list[str] = []

    def away(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        committed = list(Worker(planned.folder)(chunks))
        before.extend(planned.folder.tree(""))
        _let_lease_expire(monkeypatch)
        yield from committed

    with pytest.raises(LeaseLost, match=r"not renewed for \d+ s .*did not answer") as caught:
        run(planned, away)
    assert exit_code_of(caught.value) == ExitCode.INCOMPLETE
    assert planned.folder.tree("") == before


def test_failure_is_not_recorded_in_a_run_that_another_driver_took_over(folder: Path) -> None:
    planned = planned_run(config_for(folder))

    def failing(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        content = json.loads(planned.folder.read(VERDICT))
        planned.folder.write(
            VERDICT, json.dumps({**content, "epoch": content["epoch"] + 1}).encode()
        )
        raise RunError("a stage failed: the model is gone")
        yield

    with pytest.raises(LeaseLost, match="another driver"):
        run(planned, failing)


def test_credentials_that_expire_during_a_run_are_a_crash(folder: Path) -> None:
    planned = planned_run(config_for(folder))

    def failing(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        raise StoreCredentials("the token has expired")
        yield

    with pytest.raises(RunError, match="the token has expired") as caught:
        run(planned, failing)
    assert exit_code_of(caught.value) == ExitCode.CRASH
    assert json.loads(planned.folder.read("verdict.json"))["exit_code"] == 1


def _let_lease_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store does not answer for longer than a lease of one second."""
    monkeypatch.setattr(Folder, "read_tagged", _away)
    monkeypatch.setattr(Folder, "swap", _away)
    time.sleep(1.5)


def _away(*_: object) -> None:
    raise StoreUnavailable("_lease.json did not answer")


@contextmanager
def _full(*_: object, **__: object) -> Iterator[Path]:
    raise OSError(errno.ENOSPC, "No space left on device")
    yield
