"""Recurations whose source run, or whose destination, changes while they work or before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from omnitrace_core.errors import RunError
from pipeline.driver.run import run
from pipeline.recuration.plan import Recuration, plan_recuration
from pipeline.recuration.recurate_run import run_recuration
from pipeline.recuration.shard import recurate_shard
from pipeline.run_folder.manifests import Manifest, read_manifests, write_manifest
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import ExitCode, is_finished
from pipeline.storage.folder import Folder
from tests.pipeline.made_runs import config_for, planned_run, row_keys
from tests.pipeline.traced_runs import stages_of, write_corpus


@pytest.fixture
def source(tmp_path: Path) -> PlannedRun:
    """A finished run of one id, over three shards and an empty one."""
    write_corpus(tmp_path)
    return _run(tmp_path)


def _run(folder: Path, **sections: dict[str, object]) -> PlannedRun:
    planned = planned_run(config_for(folder, run={"id": "mine"}, **sections))
    assert run(planned, stages_of(planned)).exit_code == 0
    return planned


def _plan(source: PlannedRun, tmp_path: Path) -> Recuration:
    return plan_recuration(source.folder.root, str(tmp_path / "dest"))


def _shrink(folder: Path) -> None:
    (folder / "input" / "b.parquet").unlink()
    _run(folder)


def _grow(folder: Path) -> None:
    shutil.copy(folder / "input" / "a.parquet", folder / "input" / "z.parquet")
    _run(folder)


CHANGES = {"shrunk": _shrink, "grown": _grow}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_source_that_changes_before_the_lease_is_curated_as_it_is_then(
    source: PlannedRun, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    delayed = _plan(source, tmp_path)
    change(tmp_path)
    other = _plan(source, tmp_path)
    assert run_recuration(other, workers=1).exit_code == 0
    assert run_recuration(delayed, workers=1).exit_code == 0
    assert row_keys(delayed.folder) == row_keys(source.folder)
    assert row_keys(delayed.folder, "spans") == row_keys(source.folder, "spans")


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_source_that_changes_meanwhile_makes_it_incomplete(
    source: PlannedRun,
    tmp_path: Path,
    change: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def curate_and_change(recuration: Recuration, *more: object) -> Manifest:
        manifest = recurate_shard(recuration, *more)  # type: ignore[arg-type]
        if manifest.shard == "d.parquet":
            change(tmp_path)
        return manifest

    planned = _plan(source, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.recuration.recurate_run.recurate_shard", curate_and_change)
        verdict = run_recuration(planned, workers=1)
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "changed while it was curated; run the same command again" in verdict.reason
    assert run_recuration(_plan(source, tmp_path), workers=1).exit_code == 0
    assert row_keys(planned.folder) == row_keys(source.folder)


def test_source_that_is_run_again_with_other_settings(source: PlannedRun, tmp_path: Path) -> None:
    planned = _plan(source, tmp_path)
    _run(tmp_path, curation={"gamma": 0})
    with pytest.raises(RunError, match=r"was run again with other settings since .* same command"):
        run_recuration(planned, workers=1)
    assert run_recuration(_plan(source, tmp_path), workers=1).exit_code == 0


def test_source_whose_manifest_is_gone_or_invalid_is_not_curated_as_a_whole(
    source: PlannedRun, tmp_path: Path
) -> None:
    first = read_manifests(source.folder)["a.parquet"]
    for damage in (
        lambda: write_manifest(source.folder, replace(first, key=""), lambda: None),
        lambda: source.folder.delete("_manifests/shard-00000.json"),
    ):
        damage()
        verdict = run_recuration(_plan(source, tmp_path), workers=1)
        assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
        assert "is not finished; run the same command again when it is" in verdict.reason


@pytest.mark.parametrize("name", ["_manifests/shard-00000.json", "spans/shard-00001.parquet"])
def test_files_of_the_destination_that_vanish(
    source: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    dest = Folder(str(tmp_path / "dest"))

    def curate_and_remove(recuration: Recuration, *more: object) -> Manifest:
        manifest = recurate_shard(recuration, *more)  # type: ignore[arg-type]
        if manifest.shard == "d.parquet":
            dest.delete(name)
        return manifest

    # While it works, and afterwards.
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.recuration.recurate_run.recurate_shard", curate_and_remove)
        verdict = run_recuration(_plan(source, tmp_path), workers=1)
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "the same command does them again" in verdict.reason
    assert row_keys(dest) == row_keys(source.folder)
    for _ in range(2):
        assert run_recuration(_plan(source, tmp_path), workers=1).exit_code == 0
        assert is_finished(_plan(source, tmp_path))
        assert row_keys(dest, "spans") == row_keys(source.folder, "spans")
        dest.delete(name)
        assert not is_finished(_plan(source, tmp_path))
