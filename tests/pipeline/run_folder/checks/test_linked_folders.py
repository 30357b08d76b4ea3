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


def test_link_in_the_folder_of_chunk_files_is_deleted_and_not_followed(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    mine = folder / "mine"
    mine.mkdir()
    (mine / "file").write_text("kept")
    parts = Path(planned.folder.root, "_parts")
    parts.mkdir(parents=True)
    (parts / "link").symlink_to(mine)
    (parts / "deeper").mkdir()
    (parts / "deeper" / "file").write_text("left over")
    assert run(planned, Worker(planned.folder)).exit_code == 0
    assert (mine / "file").read_text() == "kept"
    assert not parts.exists()


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


def _all_below(planned: PlannedRun) -> list[str]:
    output = planned.identity.output.root
    return sorted(os.path.join(place, x) for place, a, b in os.walk(output) for x in (*a, *b))
