"""Two drivers of one run, whose steps are interleaved: the first one is suspended between steps.

A step is a change of the store. The first driver is suspended right before one of its steps, so
after all checks that it makes before it. The second driver takes the run over, for an input that
was changed once more. Then the first one wakes and carries out its step.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from omnitrace_core.errors import LeaseLost, RunError
from pipeline.config import RunConfig
from pipeline.driver.run import run
from pipeline.run_folder.lease_file import LEASE
from pipeline.run_folder.verdict import ExitCode
from pipeline.storage import disk
from pipeline.storage.local_store import LocalStore
from tests.pipeline.made_runs import (
    Worker,
    config_for,
    planned_run,
    row_keys,
    stored_verdict,
    write_input,
)

# The shards of the input when the run was finished first, when the first driver plans, and when the
# second one does. Shards of equal ids are equal files, also after they were gone.
Input = dict[str, list[str]]
CHANGES: dict[str, tuple[Input, Input, Input]] = {
    "shard leaves and comes back": (
        {"a": ["1"], "b": ["2"]},
        {"a": ["1"]},
        {"a": ["1"], "b": ["2"]},
    ),
    "shard leaves and another comes": (
        {"a": ["1"], "b": ["2"]},
        {"a": ["1"]},
        {"a": ["1"], "c": ["3"]},
    ),
    "shards leave and come back with others": (
        {"a": ["1"], "b": ["2"], "c": ["3"]},
        {"b": ["2"]},
        {"0": ["9"], "a": ["1"], "b": ["2"], "c": ["3"]},
    ),
    "shard changes and changes back": ({"a": ["1"]}, {"a": ["1", "2"]}, {"a": ["1"]}),
    "shard changes twice": ({"a": ["1"]}, {"a": ["1", "2"]}, {"a": ["5"]}),
    "shard comes and leaves": ({"a": ["1"]}, {"a": ["1"], "b": ["2"]}, {"a": ["1"]}),
    "nothing was there": ({}, {"a": ["1"], "b": ["2"]}, {"a": ["1"], "b": ["2"]}),
    "nothing was there, and a shard changes": (
        {},
        {"a": ["1"], "b": ["2"]},
        {"a": ["7"], "b": ["2"]},
    ),
}


@dataclass
class Steps:
    """The changes of the store by the threads that take part.

    pauses: for a thread, the number of the step before which it calls a function.
    """

    pauses: dict[int, tuple[int, Callable[[], None]]] = field(default_factory=dict)
    n_steps: dict[int, int] = field(default_factory=dict)

    def before(self, path: str) -> None:
        thread = threading.get_ident()
        if thread not in self.pauses or LEASE in path:
            return
        self.n_steps[thread] = number = self.n_steps.get(thread, 0) + 1
        at, pause = self.pauses[thread]
        if number == at:
            pause()


@contextmanager
def _watching(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every change of a local store passes `steps`: writes, deletions, deletions of folders."""

    real_delete, real_delete_folders = LocalStore.delete, LocalStore.delete_empty_folders

    def delete(store: LocalStore, paths: list[str]) -> None:
        for path in paths:
            steps.before(path)
            real_delete(store, [path])

    def delete_folders(store: LocalStore, path: str, deep: bool) -> None:
        steps.before(path)
        real_delete_folders(store, path, deep)

    real_flush = disk.flush

    def flush(partial: Path) -> None:
        """The last thing that a write does before it takes a lock, compares and renames."""
        real_flush(partial)
        steps.before(str(partial))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "flush", flush)
        patch.setattr(LocalStore, "delete", delete)
        patch.setattr(LocalStore, "delete_empty_folders", delete_folders)
        yield


class _Input:
    """An input folder whose shards are copies of files made before, with their times."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._made = folder / "input", folder / "made"
        self.folder.mkdir()

    def become(self, shards: Input) -> list[str]:
        """Make the input hold these shards; returns its row keys."""
        for path in self.folder.iterdir():
            if path.stem not in shards:
                path.unlink()
        for name, ids in shards.items():
            made = self._made / f"{'-'.join(ids)}.parquet"
            if not made.exists():
                write_input(self._made, **{made.stem: ids})
            shutil.copy2(made, self.folder / f"{name}.parquet")
        return sorted(
            f"{name}.parquet:{row}" for name, ids in shards.items() for row in range(len(ids))
        )


def _begin(folder: Path, before: Input) -> tuple[RunConfig, _Input]:
    """A folder with a finished run of the first input, if that has shards."""
    folder.mkdir()
    source = _Input(folder)
    config = config_for(folder, run={"id": "mine", "lease_s": 60})
    if before:
        source.become(before)
        planned = planned_run(config)
        assert run(planned, Worker(planned.folder, response="before")).exit_code == 0
    return config, source


def _drive(config: RunConfig, response: str) -> ExitCode | None:
    """How a driver ends; None if another one has taken the run over."""
    planned = planned_run(config)
    try:
        verdict = run(planned, Worker(planned.folder, response=response), take_lease=True)
    except LeaseLost:
        return None
    except (RunError, OSError):
        return ExitCode.CRASH
    return ExitCode(verdict.exit_code or 0)


def _assert_whole(config: RunConfig, rows: list[str], what: object) -> None:
    planned = planned_run(config)
    assert row_keys(planned.folder) == rows, what
    assert row_keys(planned.folder, "spans") == sorted(2 * rows), what
    assert row_keys(planned.folder, "traces") == rows, what


def _assert_next_command_finishes(config: RunConfig, rows: list[str], what: object) -> None:
    assert _drive(config, "next") == ExitCode.DONE, what
    _assert_whole(config, rows, what)
    planned = planned_run(config)
    assert stored_verdict(planned)["n_rows"] == len(rows)
    worker = Worker(planned.folder)
    assert run(planned, worker).exit_code == 0
    assert worker.done == []


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_late_step_takes_nothing_from_the_next_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Suspended before each step in turn, while the second driver does all the work."""
    before, first, second = CHANGES[change]
    for at in count(1):
        config, source = _begin(tmp_path / f"{at}", before)
        source.become(first)
        rows: list[str] = []

        def other(
            config: RunConfig = config, source: _Input = source, rows: list[str] = rows
        ) -> None:
            rows.extend(source.become(second))
            assert _drive(config, "second") == ExitCode.DONE

        steps = Steps({threading.get_ident(): (at, other)})
        with _watching(steps, monkeypatch):
            ended = _drive(config, "first")
        if not rows:
            break
        # If the second driver found nothing to do, the first one goes on, and finds another input.
        if ended in (None, ExitCode.DONE):
            _assert_whole(config, rows, (change, at))
        _assert_next_command_finishes(config, rows, (change, at))
    assert at > 10


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_drivers_that_are_both_suspended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The second driver is suspended, too; meanwhile the first one wakes and runs to its end."""
    before, first, second = CHANGES[change]
    chance = random.Random(change)
    for round_ in range(6):
        config, source = _begin(tmp_path / f"{round_}", before)
        source.become(first)
        at = (chance.randint(1, 24), chance.randint(1, 24))
        outcome = _interleave(config, partial(source.become, second), at, monkeypatch)
        rows = source.become(second)
        if outcome == ExitCode.DONE:
            _assert_whole(config, rows, at)
        _assert_next_command_finishes(config, rows, at)


def _interleave(
    config: RunConfig,
    change: Callable[[], object],
    at: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> ExitCode | None:
    """Run two drivers, suspended before these steps; returns how the second one ended."""
    first_wakes, first_ended = threading.Event(), threading.Event()
    second_starts = threading.Event()
    steps, outcomes = Steps(), []

    def first() -> None:
        def pause() -> None:
            second_starts.set()
            assert first_wakes.wait(60)

        steps.pauses[threading.get_ident()] = (at[0], pause)
        try:
            _drive(config, "first")
        finally:
            second_starts.set()
            first_ended.set()

    def second() -> None:
        def pause() -> None:
            first_wakes.set()
            assert first_ended.wait(60)

        assert second_starts.wait(60)
        change()
        steps.pauses[threading.get_ident()] = (at[1], pause)
        try:
            outcomes.append(_drive(config, "second"))
        finally:
            first_wakes.set()

    with _watching(steps, monkeypatch):
        threads = [threading.Thread(target=first), threading.Thread(target=second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes, at
    return outcomes[0]
