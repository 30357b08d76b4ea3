"""Files that change, and change back, while they are read: locally and on S3."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from omnitrace_core.errors import DamagedFile, InputSchemaError, RunError
from omnitrace_core.storage.files import FileChanged, identity_at, open_version
from pipeline.planning.input_shards import list_input, scan_input
from pipeline.storage.folder import Folder
from stages.arrow.state_schema import CHUNK_PLAN
from stages.read_samples import read_samples
from tests.pipeline.made_runs import write_input

_OLD, _NEW = b"old" * 4_000_000, b"new" * 4_000_000  # more than is read ahead


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path))
    return Folder(f"{request.getfixturevalue('s3_folder')}/versions")


def _put(folder: Folder, name: str, content: bytes, seconds: float = 1_000.0) -> None:
    """Put a file in place in one step, as it was modified then."""
    folder.write(name, content)
    if folder.is_local:
        os.utime(Path(folder.root, name), (seconds, seconds))


def test_the_version_that_was_asked_for_is_read(folder: Folder) -> None:
    _put(folder, "a", _OLD)
    url = folder.url("a")
    for identity in (identity_at(url), None):
        with open_version(url, identity) as file:
            assert file.read() == _OLD


@pytest.mark.parametrize("opened", ["old", "new"])
def test_a_file_that_changes_and_changes_back_is_not_read_in_between(
    folder: Folder, opened: str
) -> None:
    _put(folder, "a", _OLD)
    url, identity = folder.url("a"), identity_at(folder.url("a"))
    if opened == "new":
        _put(folder, "a", _NEW, 2_000.0)
        with pytest.raises(FileChanged), open_version(url, identity):
            pytest.fail("another version was opened")
        return
    read = b""
    with open_version(url, identity) as file:
        read += file.read(10)
        _put(folder, "a", _NEW, 2_000.0)
        if folder.is_local:
            read += file.read()
        _put(folder, "a", _OLD)
        read += file.read()
    assert read == _OLD


def _remove(folder: Folder) -> None:
    folder.delete("a")


def _change(folder: Folder) -> None:
    _put(folder, "a", _NEW, 2_000.0)


@pytest.mark.parametrize("change", [_remove, _change])
@pytest.mark.parametrize("fails", [False, True])
def test_a_file_that_stays_changed_is_said_to_have_changed(
    folder: Folder, change: Callable[[Folder], None], *, fails: bool
) -> None:
    """Also where what was read of it looks damaged."""
    _put(folder, "a", _OLD)
    url = folder.url("a")

    def read_changing() -> None:
        with open_version(url, identity_at(url)) as file:
            change(folder)
            if fails:
                raise DamagedFile("no footer")
            file.seek(9_000_000)
            file.read()

    with pytest.raises(FileChanged):
        read_changing()


def test_errors_of_an_unchanged_file_stay_what_they_are(folder: Folder) -> None:
    _put(folder, "a", _OLD)
    url = folder.url("a")
    with pytest.raises(DamagedFile), open_version(url, identity_at(url)):
        raise DamagedFile("no footer")


@pytest.mark.parametrize("state", ["other", "gone"])
def test_a_shard_that_is_another_one_is_neither_planned_nor_read(
    tmp_path: Path, state: str
) -> None:
    write_input(tmp_path, a=["1", "2"])
    listing = list_input(str(tmp_path))
    [scan] = scan_input(listing)
    row = {
        "shard": "a.parquet",
        "uri": scan.uri,
        "identity": scan.identity,
        "first_row": 0,
        "n_rows": 2,
        "duplicates": [],
        "rows": [],
    }
    empty = {field.name: None for field in CHUNK_PLAN}
    plan = pa.Table.from_pylist([{**empty, **row}], CHUNK_PLAN)
    assert len(read_samples(plan)) == 1
    (tmp_path / "a.parquet").unlink()
    if state == "other":
        write_input(tmp_path, a=["3", "4"])
    with pytest.raises((RunError, InputSchemaError), match=r"(changed|removed) while the run was"):
        scan_input(listing)
    with pytest.raises(RunError, match="is not the file that was planned"):
        read_samples(plan)
