"""Runs that stop early, and runs that die while they delete leftovers."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from omnitrace_core.errors import RunError
from pipeline.driver.finished_run import finished_verdict
from pipeline.driver.run import run
from pipeline.driver.stop_signals import restoring_handlers
from pipeline.planning.identified_run import identify_run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.lease_file import LEASE
from pipeline.run_folder.verdict import ExitCode
from pipeline.storage.folder import Folder
from tests.pipeline.made_runs import (
    ALL_ROWS,
    DAY,
    Worker,
    assert_complete,
    config_for,
    planned_run,
    row_keys,
    rows,
    stored_verdict,
    write_input,
)
from tests.stages.chunks import Killed


@pytest.mark.parametrize("ending", [Killed, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("deletions", range(4))
def test_shard_that_left_the_input_is_gone_before_a_run_is_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ending: type[BaseException], deletions: int
) -> None:
    write_input(folder / "input", c=["7", "8"])
    config = config_for(folder)
    first = planned_run(config)
    run(first, Worker(first.folder))
    (folder / "input" / "c.parquet").unlink()
    delete, numbers = Folder.delete, count()

    def ended(storage: Folder, name: str) -> None:
        if name.endswith((".parquet", ".json")) and next(numbers) == deletions:
            raise ending("SIGTERM")
        delete(storage, name)

    planned = planned_run(config)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "delete", ended)
        with suppress(Killed, OSError):
            run(planned, Worker(planned.folder))
    again = planned_run(config)
    if finished_verdict(identify_run(config, lambda: DAY)) is None:
        assert run(again, Worker(again.folder)).exit_code == 0
    assert_complete(again)
    assert stored_verdict(again)["n_shards"] == 2


def test_files_without_a_manifest_are_invisible_to_readers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their shard may be published under another number before that number is replaced."""
    (folder / "input" / "c.parquet").unlink()
    config = config_for(folder)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.run_folder.publish.write_manifest", lambda *_: _raise(Killed()))
        planned = planned_run(config)
        with pytest.raises(Killed):
            run(planned, Worker(planned.folder))
    assert row_keys(planned.folder) == ALL_ROWS[:3]
    write_input(folder / "input", A=["x", "y"])
    grown = planned_run(config)

    def stopped(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from Worker(grown.folder)([item for item in chunks if item.shard == "b.parquet"])
        raise KeyboardInterrupt("SIGTERM")

    assert run(grown, stopped).exit_code == 4
    assert row_keys(grown.folder) == ALL_ROWS
    assert run(planned_run(config), Worker(grown.folder)).exit_code == 0
    assert row_keys(grown.folder) == ["A.parquet:0", "A.parquet:1", *ALL_ROWS]


def _raise(error: BaseException) -> None:
    raise error


def test_driver_that_is_stopped_lists_no_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planned_run(config_for(folder))

    def stopped(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from Worker(planned.folder)(chunks[:2])
        monkeypatch.setattr(Folder, "listing", lambda *_: pytest.fail("it takes its time"))
        raise KeyboardInterrupt("SIGTERM")

    assert run(planned, stopped).reason.startswith("stopped by SIGTERM")


def test_too_many_errors_stop_a_run_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_input(folder / "input", a=[None, None, "1", "2"], b=["3", "4"], c=["5"])
    limits = {"max_error_fraction": 0.25, "min_rows_to_stop": 3, "chunk_samples": 2}
    planned = planned_run(config_for(folder, run=limits))
    worker = Worker(planned.folder)
    verdict = run(planned, worker)
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "stopped early: 2 of the first 4 rows are errors" in verdict.reason
    assert len(worker.done) == 2
    assert stored_verdict(planned)["reason"] == verdict.reason
    # The same command ends again before it loads a model.
    again = run(planned_run(config_for(folder, run=limits)), _nothing)
    assert (again.exit_code, again.reason) == (ExitCode.INCOMPLETE, verdict.reason)
    # Even if a driver was killed or stopped in between.
    for stop in (Killed, KeyboardInterrupt):
        with monkeypatch.context() as patch, suppress(stop):
            patch.setattr(
                "pipeline.driver.steps.count_committed_errors", lambda *_, stop=stop: _raise(stop())
            )
            run(planned_run(config_for(folder, run=limits)), _nothing)
        assert stored_verdict(planned)["reason"] != verdict.reason
        again = run(planned_run(config_for(folder, run=limits)), _nothing)
        assert again.reason == verdict.reason
    # With a higher limit the same run continues: the limit affects no record.
    patient = planned_run(config_for(folder, run={**limits, "max_error_fraction": 0.5}))
    assert patient.folder.root == planned.folder.root
    assert run(patient, Worker(planned.folder)).exit_code == 0
    assert len(row_keys(planned.folder)) == 7
    assert stored_verdict(planned)["stopped_early"] is False


def _nothing(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
    raise AssertionError("the graph was started")
    yield


def test_errors_of_a_corrected_shard_do_not_count(folder: Path) -> None:
    limits = {"max_error_fraction": 0.25, "min_rows_to_stop": 3}
    write_input(folder / "input", a=[None] * 6, b=["1", "2", "3", "4"], c=[])
    planned = planned_run(config_for(folder, run=limits))
    assert "stopped early" in run(planned, Worker(planned.folder)).reason
    patient = planned_run(config_for(folder, run={**limits, "max_error_fraction": 1}))
    run(patient, Worker(patient.folder))
    write_input(folder / "input", a=["5", "6", "7", "8", "9", "10"])
    corrected = planned_run(config_for(folder, run=limits))
    verdict = run(corrected, Worker(corrected.folder))
    assert (verdict.exit_code, verdict.n_error, verdict.n_rows) == (0, 0, 10)


def test_shard_that_changes_under_a_run_is_not_mixed(folder: Path) -> None:
    planned = planned_run(config_for(folder, run={"chunk_samples": 1}))

    def changing(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        worker = Worker(planned.folder)
        yield from worker(chunks[:1])
        write_input(folder / "input", a=["x", "y", "z"])
        yield from worker(chunks[1:])

    with pytest.raises(RunError, match=r"a.parquet is not the file that was planned: it changed"):
        run(planned, changing)
    again = planned_run(config_for(folder, run={"chunk_samples": 1}))
    assert run(again, Worker(again.folder)).exit_code == 0
    assert {row["sample_id"] for row in rows(again.folder, "samples")} >= {"x", "y", "z"}


def test_few_rows_do_not_stop_a_run(folder: Path) -> None:
    write_input(folder / "input", a=[None, None, "1", "2"], b=["3", "4"], c=["5"])
    limits = {"max_error_fraction": 0.25, "min_rows_to_stop": 100}
    planned = planned_run(config_for(folder, run=limits))
    verdict = run(planned, Worker(planned.folder))
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, True)
    assert "2 of 7 rows are errors" in verdict.reason


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_run_with_a_verdict(folder: Path, number: signal.Signals) -> None:
    planned = planned_run(config_for(folder))
    before = signal.getsignal(number)

    def stopped(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from Worker(planned.folder)(chunks[:1])
        os.kill(os.getpid(), number)
        raise AssertionError("it goes on")

    verdict = run(planned, stopped)
    assert verdict.exit_code == ExitCode.INCOMPLETE
    assert verdict.reason == f"stopped by {number.name}; the same command continues the run"
    assert json.loads(planned.folder.read(LEASE))["released"] is True
    assert signal.getsignal(number) == before
    run(planned_run(config_for(folder)), Worker(planned.folder))
    assert_complete(planned)


def test_sigterm_while_ray_starts_ends_a_run_like_any_other() -> None:
    """`ray.init` installs a handler that calls `sys.exit`."""

    def start_ray() -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), restoring_handlers():
        start_ray()
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(SystemExit), restoring_handlers():
        sys.exit("another reason")
