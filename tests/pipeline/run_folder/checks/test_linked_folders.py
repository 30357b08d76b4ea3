"""Runs whose folder or subfolders are symbolic links, or files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError
from pipeline.driver.finished_run import finished_verdict
from pipeline.driver.run import run
from pipeline.planning.identified_run import identify_run
from pipeline.run_folder.checks.linked_folders import SUBFOLDERS
from pipeline.run_folder.planned_run import PlannedRun
from tests.pipeline.made_runs import (
    DAY,
    Worker,
    assert_complete,
    config_for,
    planned_run,
    write_input,
)

KEPT = [name for name in SUBFOLDERS if name != "heatmaps"]


@pytest.mark.parametrize("name", KEPT)
def test_link_to_a_folder_works(folder: Path, name: str) -> None:
    planned = planned_run(config_for(folder))
    root, elsewhere = Path(planned.folder.root), folder / "elsewhere"
    root.mkdir(parents=True)
    elsewhere.mkdir()
    (root / name).symlink_to(elsewhere)
    assert run(planned, Worker(planned.folder)).exit_code == 0
    assert_complete(planned)
    assert (root / name).is_symlink()
    assert finished_verdict(identify_run(planned.config, lambda: DAY)) is not None
    # Also where files are replaced and deleted.
    write_input(folder / "input", a=["1", "2", "3"], d=["9"])
    (folder / "input" / "c.parquet").unlink()
    again = planned_run(planned.config)
    assert run(again, Worker(again.folder)).exit_code == 0
    assert (root / name).is_symlink()
    if name in ("_parts", "_attempts"):
        assert list(elsewhere.iterdir()) == []


def test_run_folder_that_is_a_link_works(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    root, elsewhere = Path(planned.folder.root), folder / "elsewhere"
    root.parent.mkdir(parents=True)
    elsewhere.mkdir()
    root.symlink_to(elsewhere)
    assert run(planned, Worker(planned.folder)).exit_code == 0
    assert_complete(planned)
    assert finished_verdict(identify_run(planned.config, lambda: DAY)) is not None


OWN = {
    "_parts": f"{'0f' * 16}.arrow",
    "_attempts": f"{'0f' * 16}.trace_decode.json",
    "_staged": "000001.shard-00000.samples",
}


@pytest.mark.parametrize("name", OWN)
def test_files_of_others_behind_a_link_are_never_deleted(folder: Path, name: str) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    root, shared = Path(planned.folder.root), folder / "shared"
    if name == "_staged":
        # Staged files are deleted at the end of a retry.
        assert run(planned, Worker(planned.folder, failing={"4": "oom"})).exit_code == 0
        config = config_for(folder, run={"retry": "errors"})
        planned = planned_run(config)
    root.mkdir(parents=True, exist_ok=True)
    write_input(shared, mine=["1"])
    mine = ("mine.txt", f"deeper/{OWN[name]}", f"{OWN[name]}.old", "x.arrow", "x.partial")
    for file in mine:
        (shared / file).parent.mkdir(exist_ok=True)
        (shared / file).write_text("mine")
    (shared / "empty").mkdir()
    (shared / "link").symlink_to(shared / "deeper")
    before = set(shared.rglob("*"))
    left_over = [shared / OWN[name], shared / f".{OWN[name]}.1f.partial"]
    for path in left_over:
        path.write_text("left over")
    (root / name).symlink_to(shared)
    assert run(planned, Worker(planned.folder)).exit_code == 0
    assert set(shared.rglob("*")) == before
    assert all((shared / file).read_text() == "mine" for file in mine)


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _link_to_a_file(path: Path) -> None:
    file = path.parent / "a_file"
    file.write_text("")
    path.symlink_to(file)


def _file(path: Path) -> None:
    path.write_text("")


def _link_to_its_parent(path: Path) -> None:
    path.symlink_to(".")


def _link_to_another(path: Path) -> None:
    other = path.with_name(next(name for name in KEPT if name != path.name))
    other.mkdir()
    path.symlink_to(other)


REFUSED: dict[Callable[[Path], None], str] = {
    _link_to_nothing: r"is a link to nowhere, which is not a folder; create that folder, or delete",
    _link_to_itself: r"is a link to \S+, which is not a folder",
    _link_to_a_file: r"is a link to \S+a_file, which is not a folder",
    _file: r"is a file, and the run needs a folder of this name; delete the file",
    _link_to_its_parent: r"is a link to \S+, in which it lies; delete the link",
    _link_to_another: r"are the same folder, \S+: .*; give each a folder of its own",
}


@pytest.mark.parametrize("name", [*SUBFOLDERS, ""])
@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__.strip("_"))
def test_other_links_and_files_are_refused_before_any_work(
    folder: Path, name: str, make: Callable[[Path], None]
) -> None:
    planned = planned_run(config_for(folder))
    path = Path(planned.folder.root, name)
    if not name and make in (_link_to_its_parent, _link_to_another):
        pytest.skip("of subfolders only")
    path.parent.mkdir(parents=True)
    make(path)
    before = _all_below(planned)
    with pytest.raises(ConfigError, match=REFUSED[make]):
        run(planned, Worker(planned.folder))
    assert _all_below(planned) == before


@pytest.mark.parametrize("name", ["_parts", "samples"])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("input", r"which is \S+input, and the run reads that; let it lead to a folder of its own"),
        ("input/sub", r"which lies in \S+input, and the run reads that"),
        ("holding", r"which contains \S+input, and the run reads that"),
        ("other/_parts", r"which lies in the folder of another run, \S+other; let it lead to"),
        ("other", r"which lies in the folder of another run, \S+other;"),
        ("samples/sub", r"which lies in \S+samples, that is \S+samples; give each a folder"),
    ],
)
def test_link_into_other_data_is_refused(folder: Path, name: str, target: str, said: str) -> None:
    if (name, target) == ("samples", "samples/sub"):
        pytest.skip("is a link to nothing")
    place = folder / "holding"
    place.mkdir()
    (folder / "input").rename(place / "input")
    (folder / "input").symlink_to(place / "input")
    (folder / "input" / "sub").mkdir()
    other = planned_run(config_for(folder, run={"id": "other"}))
    assert run(other, Worker(other.folder)).exit_code == 0
    planned = planned_run(config_for(folder, run={"id": "mine"}))
    root = Path(planned.folder.root)
    (root / "samples").mkdir(parents=True)
    if name == "samples":
        (root / "samples").rmdir()
    places = {
        "input": folder / "input",
        "input/sub": folder / "input/sub",
        "holding": place,
        "other": Path(other.folder.root),
        "other/_parts": Path(other.folder.root, "_parts"),
        "samples/sub": root / "samples/sub",
    }
    places[target].mkdir(exist_ok=True)
    (root / name).symlink_to(places[target])
    before = _all_below(planned), sorted(os.listdir(folder / "input"))
    with pytest.raises(ConfigError, match=said):
        run(planned, Worker(planned.folder))
    assert (_all_below(planned), sorted(os.listdir(folder / "input"))) == before


def _all_below(planned: PlannedRun) -> list[str]:
    output = planned.identity.output.root
    return sorted(os.path.join(place, x) for place, a, b in os.walk(output) for x in (*a, *b))
