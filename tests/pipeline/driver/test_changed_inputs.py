"""Inputs that change between the runs of one command."""

from __future__ import annotations

from pathlib import Path

from pipeline.driver.run import run
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import is_finished
from tests.pipeline.made_runs import (
    ALL_ROWS,
    Worker,
    assert_complete,
    config_for,
    planned_run,
    row_keys,
    rows,
    write_input,
)


def test_changed_shard_replaces_its_own_files(folder: Path) -> None:
    config = config_for(folder)
    run(planned_run(config), Worker(planned_run(config).folder, response="old"))
    write_input(folder / "input", b=["4", "5"])
    planned = planned_run(config)
    assert not is_finished(planned)
    worker = Worker(planned.folder, response="new")
    verdict = run(planned, worker)
    assert (len(worker.done), verdict.n_rows, verdict.n_error) == (1, 5, 0)
    responses = {row["row_key"]: row["response"] for row in rows(planned.folder, "samples")}
    assert responses == {
        **{f"a.parquet:{row}": "old" for row in range(3)},
        "b.parquet:0": "new",
        "b.parquet:1": "new",
    }
    assert len(rows(planned.folder, "spans")) == 10


def test_changed_settings_make_another_run_beside_the_first(folder: Path) -> None:
    first = planned_run(config_for(folder))
    run(first, Worker(first.folder, response="old"))
    before = _files(first.folder.root)
    planned = planned_run(config_for(folder, decode={"seed": 1}))
    assert run(planned, Worker(planned.folder, response="new")).exit_code == 0
    assert_complete(planned)
    assert len(list((folder / "output").glob("run_date=*/run_id=*"))) == 2
    assert _responses(planned) == {"new"}
    assert _files(first.folder.root) == before
    assert _responses(first) == {"old"}


def test_changed_settings_replace_all_of_a_run_with_a_fixed_id(folder: Path) -> None:
    first = planned_run(config_for(folder, run={"id": "mine"}))
    run(first, Worker(first.folder, response="old"))
    planned = planned_run(config_for(folder, run={"id": "mine"}, decode={"seed": 1}))
    assert planned.folder.root == first.folder.root
    assert run(planned, Worker(planned.folder, response="new")).exit_code == 0
    assert_complete(planned)
    assert _responses(planned) == {"new"}
    published = read_manifests(planned.folder).values()
    assert {manifest.fingerprint for manifest in published} == {planned.identity.fingerprint}
    assert planned.identity.fingerprint != first.identity.fingerprint


def _responses(planned: PlannedRun) -> set[str]:
    """Responses of the published rows without an error."""
    return {row["response"] for row in rows(planned.folder, "samples") if row["status"] == "ok"}


def _files(root: str) -> dict[Path, tuple[int, bytes]]:
    """Time of modification and content of each file."""
    found = [path for path in Path(root).rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def test_shards_come_and_go(folder: Path) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    run(planned, Worker(planned.folder, response="old"))
    published = {name: item.number for name, item in read_manifests(planned.folder).items()}
    assert published == {"a.parquet": 0, "b.parquet": 1, "c.parquet": 2}
    write_input(folder / "input", aa=["8", "9"], z=["10"])
    (folder / "input" / "b.parquet").unlink()
    planned = planned_run(config)
    verdict = run(planned, Worker(planned.folder, response="new"))
    assert (verdict.exit_code, verdict.n_rows, verdict.n_error) == (0, 6, 0)
    published = {name: item.number for name, item in read_manifests(planned.folder).items()}
    # Number 1 is never used again: a late deletion of its files must not meet others.
    assert published == {"a.parquet": 0, "c.parquet": 2, "aa.parquet": 3, "z.parquet": 4}
    expected = [
        *(f"a.parquet:{i}" for i in range(3)),
        "aa.parquet:0",
        "aa.parquet:1",
        "z.parquet:0",
    ]
    assert row_keys(planned.folder) == expected
    assert row_keys(planned.folder, "spans") == sorted(expected * 2)
    responses = {row["row_key"]: row["response"] for row in rows(planned.folder, "samples")}
    assert {key for key, text in responses.items() if text == "old"} == set(expected[:3])
    assert is_finished(planned_run(config))


def test_shard_whose_id_becomes_a_repetition_is_done_again(folder: Path) -> None:
    """A new shard that sorts first has the same id, so the old row must become an error."""
    config = config_for(folder)
    run(planned_run(config), Worker(planned_run(config).folder))
    write_input(folder / "input", **{"0": ["2"]})
    planned = planned_run(config)
    run(planned, Worker(planned.folder))
    ok = [row["sample_id"] for row in rows(planned.folder, "samples") if row["status"] == "ok"]
    assert sorted(ok) == ["1", "2", "3", "4"]
    by_key = {row["row_key"]: row for row in rows(planned.folder, "samples")}
    assert by_key["a.parquet:1"]["error_code"] == "duplicate_sample_id"
    assert [key for key in row_keys(planned.folder, "spans") if key == "a.parquet:1"] == []


def test_leftovers_of_killed_writers_are_deleted(folder: Path) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    stray = (
        "samples/.shard-00000.parquet.1f.partial",
        "spans/shard-00007.parquet",
        "_parts/.x.1f.partial",
    )
    for name in stray:
        path = Path(planned.folder.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    run(planned, Worker(planned.folder))
    assert_complete(planned)
    assert not any(planned.folder.exists(name) for name in stray)


def test_traces_can_be_left_out(folder: Path) -> None:
    kept = config_for(folder, run={"id": "mine", "chunk_samples": 2})
    run(planned_run(kept), Worker(planned_run(kept).folder))
    config = config_for(folder, run={"id": "mine", "chunk_samples": 2}, trace={"store": "none"})
    planned = planned_run(config)
    run(planned, Worker(planned.folder))
    assert planned.folder.names("traces") == []
    assert row_keys(planned.folder) == ALL_ROWS
    assert set(read_manifests(planned.folder)["a.parquet"].files) == {
        "samples/shard-00000.parquet",
        "spans/shard-00000.parquet",
    }
