"""A run is done only if what is published is whole."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Sequence
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.driver.finished_run import finished_verdict
from pipeline.driver.run import run
from pipeline.planning.identified_run import identify_run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.lease import Lease
from pipeline.run_folder.manifests import MANIFESTS
from pipeline.run_folder.verdict import ExitCode, is_finished
from pipeline.storage.folder import Folder
from stages.arrow.table_schema import TABLES
from tests.pipeline.made_runs import (
    ALL_ROWS,
    DAY,
    Worker,
    assert_complete,
    config_for,
    planned_run,
    row_keys,
)


def _remove(*names: str) -> Callable[[Folder], None]:
    return lambda folder: folder.delete_many(names)


def _remove_manifests(folder: Folder) -> None:
    folder.delete_folder(MANIFESTS)


def _add(name: str) -> Callable[[Folder], None]:
    return lambda folder: folder.write(name, folder.read("spans/shard-00000.parquet"))


DAMAGE: dict[str, Callable[[Folder], None]] = {
    "a manifest": _remove("_manifests/shard-00000.json"),
    "all manifests": _remove_manifests,
    **{f"a file of {table}": _remove(f"{table}/shard-00000.parquet") for table in TABLES},
    "all of a shard": _remove(
        "_manifests/shard-00000.json", *(f"{table}/shard-00000.parquet" for table in TABLES)
    ),
    "a file more": _add("spans/shard-00009.parquet"),
    "a table more": _add("heatmaps/shard-00000.parquet"),
}
del DAMAGE["a file of heatmaps"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_run_is_not_done_if_published_files_change_while_it_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """After each of its checks of the lease from the first published shard on."""
    confirm = Lease.confirm
    outcomes = set()
    for damage_at in count(1):
        config = config_for(folder, output={"path": str(folder / f"output{damage_at}")})
        planned = planned_run(config)
        checks: list[int] = []

        def confirm_and_damage(
            lease: Lease,
            target: Folder = planned.folder,
            at: int = damage_at,
            n: list[int] = checks,
        ) -> None:
            confirm(lease)
            if target.exists("_manifests/shard-00000.json") or n:
                n.append(1)
            if len(n) == at:
                DAMAGE[damage](target)

        with monkeypatch.context() as patch:
            patch.setattr(Lease, "confirm", confirm_and_damage)
            verdict = run(planned, Worker(planned.folder))
        if len(checks) < damage_at:
            break
        # Only what happens after the last listing can be missed by the driver: while it writes the
        # totals to run.json, and then the verdict.
        was_late = damage_at >= len(checks) - 1
        if not was_late and not damage.endswith("file more"):
            assert verdict.exit_code == ExitCode.INCOMPLETE, damage_at
            assert "the same command does them again" in verdict.reason
        outcomes.add(verdict.exit_code)
        # The next command notices it in any case.
        again = planned_run(config)
        assert run(again, Worker(again.folder)).exit_code == 0
        assert_complete(again)
        assert is_finished(planned_run(config))
    assert damage_at > 6
    assert ExitCode.DONE in outcomes


def test_sweep_leaves_the_files_of_other_shards_alone(folder: Path) -> None:
    """A run whose manifests are removed must not delete what it published itself."""
    planned = planned_run(config_for(folder))

    def work(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from Worker(planned.folder)(chunks)
        _remove_manifests(planned.folder)

    verdict = run(planned, work)
    assert verdict.exit_code == ExitCode.INCOMPLETE
    assert "of 3 shards (a.parquet, b.parquet, c.parquet) were removed, changed" in (verdict.reason)
    assert row_keys(planned.folder) == ALL_ROWS


@pytest.mark.parametrize(
    "name", ["samples/mine.parquet", "spans/copy.PARQUET", "traces/sub/deeper/shard-00009.parquet"]
)
def test_file_of_another_name_is_named_and_kept(folder: Path, name: str) -> None:
    """A reader of the whole folder would read its rows; nobody but its owner may delete it."""
    config = config_for(folder)
    planned = planned_run(config)
    assert run(planned, Worker(planned.folder)).exit_code == 0
    planned.folder.write(name, planned.folder.read("spans/shard-00000.parquet"))
    for _ in range(2):
        assert finished_verdict(identify_run(config, lambda: DAY)) is None
        again = planned_run(config)
        verdict = run(again, Worker(again.folder))
        assert verdict.exit_code == ExitCode.INCOMPLETE
        assert f"({name}): whoever reads a whole folder gets their rows" in verdict.reason
        assert "move them elsewhere" in verdict.reason
        assert planned.folder.is_file(name)
    planned.folder.delete(name)
    again = planned_run(config)
    assert run(again, Worker(again.folder)).exit_code == 0
    assert_complete(again)


def test_hidden_and_other_files_in_a_table_are_left_alone(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    mine = ("samples/.mine.parquet", "samples/.sub/x.parquet", "spans/x.partial", "spans/notes.txt")
    for name in mine:
        planned.folder.write(name, b"mine")
    assert run(planned, Worker(planned.folder)).exit_code == 0
    assert all(planned.folder.read(name) == b"mine" for name in mine)


def _empty_file(folder: Folder) -> None:
    name = "samples/shard-00000.parquet"
    table = pq.read_table(io.BytesIO(folder.read(name)))
    content = io.BytesIO()
    pq.write_table(table.slice(0, 0), content)
    folder.write(name, content.getvalue())


def _truncate(folder: Folder) -> None:
    name = "spans/shard-00001.parquet"
    folder.write(name, folder.read(name)[:-9])


LATER = {**DAMAGE, "an emptied file": _empty_file, "a truncated file": _truncate}


@pytest.mark.parametrize("damage", LATER.values(), ids=LATER)
@pytest.mark.parametrize("interrupted", [False, True])
def test_finished_run_whose_files_are_damaged_is_put_right(
    folder: Path, damage: Callable[[Folder], None], interrupted: bool
) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    run(planned, Worker(planned.folder))
    assert finished_verdict(identify_run(config, lambda: DAY)) is not None
    damage(planned.folder)
    assert finished_verdict(identify_run(config, lambda: DAY)) is None
    if interrupted:

        def dies(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
            raise KeyboardInterrupt
            yield

        run(planned_run(config), dies)
    again = planned_run(config)
    assert run(again, Worker(again.folder)).exit_code == 0
    assert_complete(again)
