"""Inputs that change between the plan and the lease, or while a run works."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest

from omnitrace_core.errors import InputSchemaError
from pipeline.driver.run import run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import ExitCode
from tests.pipeline.made_runs import (
    Worker,
    config_for,
    planned_run,
    row_keys,
    stored_verdict,
    write_input,
)


def _grow(source: Path) -> None:
    write_input(source, A=["x"], d=["9", "10"])


def _edit(source: Path) -> None:
    write_input(source, a=["1", "2", "3", "new"], b=["4"])


def _shrink(source: Path) -> None:
    (source / "b.parquet").unlink()


def _replace_all(source: Path) -> None:
    for path in source.iterdir():
        path.unlink()
    write_input(source, b=["4", "other"], z=["9"])


CHANGES = {"grown": _grow, "edited": _edit, "shrunk": _shrink, "replaced": _replace_all}


def _rows_of_input(folder: Path) -> list[str]:
    planned = planned_run(config_for(folder))
    return sorted(
        f"{shard.name}:{row}" for shard in planned.plan.shards for row in range(shard.n_rows)
    )


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("n_finished_before", [0, 1])
def test_driver_that_was_delayed_before_its_lease_works_on_the_present_input(
    folder: Path, change: Callable[[Path], None], n_finished_before: int
) -> None:
    """Another driver finishes the changed input between the delayed driver's plan and lease."""
    config = config_for(folder)
    for _ in range(n_finished_before):
        first = planned_run(config)
        run(first, Worker(first.folder))
    delayed = planned_run(config)
    change(folder / "input")
    other = planned_run(config)
    run(other, Worker(other.folder))
    worker = Worker(delayed.folder)
    verdict = run(delayed, worker)
    assert (verdict.exit_code, worker.done) == (0, [])
    assert row_keys(delayed.folder) == _rows_of_input(folder)
    assert stored_verdict(delayed)["n_rows"] == len(_rows_of_input(folder))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_finished_plan_of_an_earlier_input_is_not_the_answer(
    folder: Path, change: Callable[[Path], None]
) -> None:
    """Nobody else works: the driver plans a finished run, and the input changes before it looks."""
    config = config_for(folder)
    first = planned_run(config)
    run(first, Worker(first.folder))
    delayed = planned_run(config)
    change(folder / "input")
    verdict = run(delayed, Worker(delayed.folder))
    assert verdict.exit_code == 0
    assert row_keys(delayed.folder) == _rows_of_input(folder)


def _changing(
    planned: PlannedRun, change: Callable[[], None]
) -> Callable[[Sequence[Chunk]], Generator[CommittedChunk, None, None]]:
    """Work after whose last chunk the input changes."""

    def work(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        committed = list(Worker(planned.folder)(chunks))
        change()
        yield from committed

    return work


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_input_that_changes_while_a_run_works_makes_it_incomplete(
    folder: Path, change: Callable[[Path], None]
) -> None:
    planned = planned_run(config_for(folder))
    verdict = run(planned, _changing(planned, lambda: change(folder / "input")))
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "the input changed while the run worked: " in verdict.reason
    assert stored_verdict(planned)["finished"] is False
    # What was done and is still valid is kept.
    again = planned_run(config_for(folder))
    worker = Worker(again.folder)
    assert run(again, worker).exit_code == 0
    assert row_keys(again.folder) == _rows_of_input(folder)
    if change is _grow:
        assert len(worker.done) == 2


def test_reason_names_the_shards_that_changed(folder: Path) -> None:
    planned = planned_run(config_for(folder))

    def change() -> None:
        write_input(folder / "input", a=["7"], **{f"new{i}": [f"n{i}"] for i in range(5)})
        (folder / "input" / "c.parquet").unlink()

    reason = run(planned, _changing(planned, change)).reason
    assert "5 shards added (new0.parquet, new1.parquet, new2.parquet, ...)" in reason
    assert "1 shard changed (a.parquet), 1 shard removed (c.parquet)" in reason


@pytest.mark.parametrize("when", ["before", "during"])
def test_input_that_is_gone(folder: Path, when: str) -> None:
    planned = planned_run(config_for(folder))

    def delete_all() -> None:
        for path in (folder / "input").iterdir():
            path.unlink()

    if when == "before":
        delete_all()
        with pytest.raises(InputSchemaError, match=r"holds no \.parquet shard"):
            run(planned, Worker(planned.folder))
        assert not planned.folder.exists("verdict.json")
    else:
        verdict = run(planned, _changing(planned, delete_all))
        assert verdict.exit_code == ExitCode.INCOMPLETE
        assert "holds no .parquet shard" in verdict.reason
