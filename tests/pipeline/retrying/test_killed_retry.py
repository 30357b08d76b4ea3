"""Retries whose driver is killed or sleeps at any step: the old rows or the new, no mixture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from omnitrace_core.errors import LeaseLost
from pipeline.config import RunConfig
from pipeline.driver.run import run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.chunk_files import committed_chunks
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.lease import Lease
from pipeline.run_folder.lease_file import current_claim
from pipeline.run_folder.manifests import manifest_name, read_manifests
from pipeline.run_folder.stored_run import find_run
from pipeline.run_folder.table_files import STAGED
from pipeline.run_folder.verdict import VERDICT
from pipeline.storage.folder import Folder
from tests.pipeline.killed_steps import die_before_step
from tests.pipeline.made_runs import (
    ALL_ROWS,
    Worker,
    config_for,
    planned_run,
    stored_verdict,
    write_input,
)
from tests.pipeline.retrying.made_retries import (
    FAILING,
    STILL_FAILING,
    assert_whole,
    leftovers,
    parquet_files,
    retrying,
    run_with,
    tables,
    traced,
)
from tests.stages.chunks import Killed


def _copy_of_finished(folder: Path, name: str) -> dict[str, dict[str, str]]:
    """The config section of an output that holds a copy of the finished run with its errors."""
    if not (folder / "output").exists():
        run_with(config_for(folder), "old", FAILING)
    shutil.copytree(folder / "output", folder / name)
    return {"output": {"path": str(folder / name)}}


@pytest.mark.slow
def test_kill_before_any_step_leaves_old_or_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = retrying(folder, **_copy_of_finished(folder, "whole"))
    old = traced(tables(planned_run(whole).folder))
    run_with(whole, "new", STILL_FAILING)
    new = traced(tables(planned_run(whole).folder))
    files = parquet_files(planned_run(whole).folder)
    n_replaced_in_between = 0
    for die_at in range(1, 100):
        config = retrying(folder, **_copy_of_finished(folder, f"kill{die_at}"))
        output = planned_run(config).folder
        try:
            with monkeypatch.context() as patch:
                die_before_step(patch, die_at)
                run_with(config, "new", STILL_FAILING)
            break
        except Killed:
            pass
        seen = traced(tables(output))
        manifests = read_manifests(output)
        for name, manifest in manifests.items():
            keys = [key for key in ALL_ROWS if key.startswith(name)]
            states = [{key: state[key] for key in keys} for state in (old, new)]
            assert {key: seen[key] for key in keys} in states, die_at
            if manifest.replacement is None:
                assert {key: seen[key] for key in keys} == states[manifest.retry], die_at
                continue
            n_replaced_in_between += 1
            # Other commands see that this shard is between two states.
            assert name not in find_run(output.root).manifests
            assert not find_run(output.root).finished
        stored = stored_verdict(planned_run(config))
        if (stored["finished"], stored["retry"]) == (True, 1):
            # It died when the retry was done: the command would begin the next one.
            assert seen == new
            assert_whole(output)
            continue
        committed = committed_chunks(output)
        verdict, worker = run_with(config, "new", STILL_FAILING)
        assert (verdict.finished, verdict.retry) == (True, 1), die_at
        assert (verdict.n_retried, verdict.n_mended) == (3, 2), die_at
        assert not committed & set(worker.done)
        assert traced(tables(output)) == new, die_at
        assert parquet_files(output) == files, die_at
        assert_whole(output)
        assert leftovers(output) == [], die_at
    assert die_at > 30
    # Two shards, before each of four copies and before the manifest, at least.
    assert n_replaced_in_between >= 8


@pytest.mark.slow
def test_kill_while_a_killed_replacement_is_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain command finishes it as well, and does not repeat the retry."""
    whole = retrying(folder, **_copy_of_finished(folder, "whole"))
    run_with(whole, "new", STILL_FAILING)
    new = traced(tables(planned_run(whole).folder))
    first = retrying(folder, **_copy_of_finished(folder, "first"))
    begun = _killed_while_replacing(first, monkeypatch)
    for die_at in range(1, 100):
        sections = {"output": {"path": str(folder / f"kill{die_at}")}}
        shutil.copytree(folder / "first", folder / f"kill{die_at}")
        config = config_for(folder, **sections)
        output = planned_run(config).folder
        try:
            with monkeypatch.context() as patch:
                die_before_step(patch, die_at)
                run_with(config, "not used", {})
            break
        except Killed:
            pass
        _, worker = run_with(config, "not used", {})
        assert worker.done == []
        assert_whole(output)
        seen = traced(tables(output))
        assert {key: seen[key] for key in ALL_ROWS if key.startswith(begun)} == {
            key: new[key] for key in ALL_ROWS if key.startswith(begun)
        }
        assert leftovers(output) == []
        # The retry was given up with the run that finished: the next one is another.
        assert run_with(retrying(folder, **sections), "next", {})[0].retry == 2
    assert die_at > 12


def _killed_while_replacing(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> str:
    """Kill a retry after it replaced the first file of a shard; returns the shard's name."""
    copy = Folder.copy
    copied: list[str] = []

    def copy_or_die(*args: Any, **kwargs: Any) -> None:
        if copied:
            raise Killed
        copy(*args, **kwargs)
        copied.append(args[1])

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "copy", copy_or_die)
        with pytest.raises(Killed):
            run_with(config, "new", STILL_FAILING)
    manifests = read_manifests(planned_run(config).folder).values()
    (begun,) = [manifest for manifest in manifests if manifest.replacement]
    return begun.shard


@pytest.mark.parametrize("replaced", [False, True])
def test_staged_files_that_vanish_leave_the_old_files_or_do_the_shard_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    config = config_for(folder)
    run_with(config, "old", FAILING)
    old = tables(planned_run(config).folder)
    before = parquet_files(planned_run(config).folder)
    begun = _killed_while_replacing(retrying(folder), monkeypatch)
    output = planned_run(config).folder
    if not replaced:
        for name, content in before.items():
            if output.read(name) != content:
                # As if the copy had never been made, to the nanosecond.
                _restore(output, name, content, begun)
    for name in output.names(STAGED):
        output.delete(f"{STAGED}/{name}")
    _, worker = run_with(config, "again", FAILING)
    assert_whole(output)
    assert leftovers(output) == []
    if replaced:
        assert len(worker.done) == 2
    else:
        assert worker.done == []
        assert tables(output) == old


def _restore(output: Folder, name: str, content: bytes, shard: str) -> None:
    output.write(name, content)
    manifest = read_manifests(output)[shard]
    stored = json.loads(output.read(manifest_name(manifest.number)))
    stored["replacement"]["versions"][name] = output.version(name)
    output.write(manifest_name(manifest.number), json.dumps(stored).encode())


@pytest.mark.parametrize("command", [config_for, retrying])
def test_staged_files_of_a_retry_are_deleted_without_a_verdict(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[Path], RunConfig]
) -> None:
    config = config_for(folder)
    run_with(config, "old", FAILING)
    output = planned_run(config).folder
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "copy", _die)
        with pytest.raises(Killed):
            run_with(retrying(folder), "new", STILL_FAILING)
    assert output.names(STAGED)
    output.delete(VERDICT)
    assert run_with(command(folder), "new", STILL_FAILING)[0].finished
    assert leftovers(output) == []


def _die(*args: object, **kwargs: object) -> NoReturn:
    raise Killed


class _Sleeper:
    """A driver that sleeps after its n-th check of the lease, while another does `meanwhile`."""

    def __init__(self, suspend_after: int, meanwhile: Callable[[], None]) -> None:
        self.suspend_after, self.meanwhile = suspend_after, meanwhile
        self.n_checks = 0

    def run(self, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        planned, confirm = planned_run(config), Lease.confirm

        def confirm_and_sleep(lease: Lease) -> None:
            confirm(lease)
            self.n_checks += 1
            if self.n_checks == self.suspend_after:
                with monkeypatch.context() as unpatched:
                    unpatched.setattr(Lease, "confirm", confirm)
                    self.meanwhile()

        def work(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
            claim = current_claim(planned.folder)
            yield from Worker(planned.folder, "new", claim, STILL_FAILING)(chunks)

        with monkeypatch.context() as patch, suppress(LeaseLost):
            patch.setattr(Lease, "confirm", confirm_and_sleep)
            run(planned, work)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["errors", "none", ["media_timeout"], "changed input"])
def test_driver_that_wakes_at_any_step_of_a_retry_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: object
) -> None:
    """The other driver makes the same retry, none, or another, or finds other input."""
    ids = ["1", "2", "3"]
    write_input(tmp_path / "input", a=ids)
    for suspend_after in range(1, 100):
        sections = _copy_of_finished(tmp_path, f"asleep{suspend_after}")
        choice = "errors" if other == "changed input" else other

        def meanwhile(
            sections: dict[str, dict[str, str]] = sections, choice: object = choice
        ) -> None:
            if other == "changed input":
                write_input(tmp_path / "input", a=[*ids, "x"])
            planned = planned_run(retrying(tmp_path, choice, **sections))
            run(planned, Worker(planned.folder, "other", failing=FAILING), take_lease=True)

        sleeper = _Sleeper(suspend_after, meanwhile)
        sleeper.run(retrying(tmp_path, **sections), monkeypatch)
        if sleeper.n_checks < suspend_after:
            break
        keys = [f"a.parquet:{row}" for row in range(4 if other == "changed input" else 3)]
        for choice in ("none", "errors"):
            verdict, _ = run_with(retrying(tmp_path, choice, **sections), "last", {})
            output = planned_run(retrying(tmp_path, **sections)).folder
            assert verdict.finished
            assert_whole(output, keys)
            assert leftovers(output) == []
        assert verdict.n_error == 0
        if other == "changed input":
            shutil.rmtree(tmp_path / "output")
            write_input(tmp_path / "input", a=ids)
    assert 12 < suspend_after < 60
