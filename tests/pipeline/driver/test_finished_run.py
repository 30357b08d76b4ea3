"""A finished run is recognised by listings and its verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from omnitrace_core.errors import InputSchemaError
from pipeline.cli import main
from pipeline.config import RunConfig
from pipeline.driver.finished_run import finished_verdict
from pipeline.driver.run import run
from pipeline.planning.identified_run import identify_run
from pipeline.planning.input_shards import list_input
from pipeline.run_folder.lease import acquire_lease
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import Verdict
from pipeline.storage.folder import Folder
from stages.arrow.table_schema import TABLES
from tests.pipeline.made_runs import (
    DAY,
    Worker,
    config_for,
    planned_run,
    stored_verdict,
    write_input,
)


def _finished_verdict(config: RunConfig) -> Verdict | None:
    return finished_verdict(identify_run(config, lambda: DAY))


def test_finished_run_is_recognised_by_listings_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(folder, run={"max_error_fraction": 0.5})
    assert _finished_verdict(config) is None
    planned = planned_run(config)
    verdict = run(planned, Worker(planned.folder))
    listed: list[str] = []
    read: list[str] = []
    monkeypatch.setattr(Folder, "open", lambda *_: pytest.fail("a shard was opened"))
    real_sizes, real_read = Folder.sizes, Folder.read

    def counted_sizes(folder: Folder, *args: Any, **kwargs: Any) -> dict[str, int]:
        listed.append(args[0])
        return real_sizes(folder, *args, **kwargs)

    def counted_read(folder: Folder, name: str) -> bytes:
        read.append(name)
        return real_read(folder, name)

    monkeypatch.setattr(Folder, "sizes", counted_sizes)
    monkeypatch.setattr(Folder, "listing", lambda *_: pytest.fail("listed twice"))
    monkeypatch.setattr(Folder, "read", counted_read)
    found = _finished_verdict(config)
    assert found == verdict
    assert listed == ["_manifests", *TABLES]
    assert read == [f"_runs/{planned.run_id}.json", "verdict.json"]
    strict = _finished_verdict(config_for(folder, run={"max_error_fraction": 0.1}))
    assert strict is not None
    assert (strict.exit_code, strict.n_error) == (4, 2)


@pytest.mark.parametrize(
    "change", ["shard", "settings", "manifest", "verdict", "older", "lease is held"]
)
def test_run_that_is_no_longer_finished(folder: Path, change: str) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    run(planned, Worker(planned.folder))
    assert _finished_verdict(config) is not None
    if change == "shard":
        write_input(folder / "input", d=["9"])
    elif change == "settings":
        config = config_for(folder, run={"chunk_samples": 3})
    elif change == "lease is held":
        # By a driver that has not written its first verdict yet, or that died before.
        acquire_lease(planned.folder, 60)
    elif change == "manifest":
        planned.folder.delete("_manifests/shard-00000.json")
    elif change == "verdict":
        planned.folder.delete("verdict.json")
    else:
        verdict = {key: value for key, value in stored_verdict(planned).items() if key != "inputs"}
        planned.folder.write("verdict.json", json.dumps(verdict).encode())
    assert _finished_verdict(config) is None


def test_missing_input_of_a_finished_run_is_an_error(folder: Path) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    run(planned, Worker(planned.folder))
    for path in (folder / "input").iterdir():
        path.unlink()
    with pytest.raises(InputSchemaError, match=r"holds no .parquet shard"):
        _finished_verdict(config)


def test_listing_has_the_identity_of_each_shard(folder: Path) -> None:
    listing = list_input(str(folder / "input"))
    assert list(listing.shards) == ["a.parquet", "b.parquet", "c.parquet"]
    assert listing.shards == {name: listing.folder.identity(name) for name in listing.shards}


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collects "list" for each listing of the input, and "hash" for each hash of the model."""
    found: list[str] = []
    tree_listing, open_path = Folder.tree_listing, Path.open

    def counted_listing(folder: Folder, suffix: str) -> dict[str, str]:
        if folder.root.endswith("/input"):
            found.append("list")
        return tree_listing(folder, suffix)

    def counted_open(path: Path, *args: Any, **kwargs: Any) -> IO[Any]:
        if path.suffix == ".safetensors":
            found.append("hash")
        return open_path(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "tree_listing", counted_listing)
        patch.setattr(Path, "open", counted_open)
        yield found


def test_model_is_hashed_once_per_command_and_input_listed_no_more_than_needed(
    folder: Path,
    tiny_model: str,
    costs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = folder / "run.yaml"
    config.write_text(
        f"input: {{path: {folder}/input}}\n"
        f"output: {{path: {folder}/output}}\n"
        f"model: {{path: {tiny_model}}}\n"
    )

    def without_ray(planned: PlannedRun, *, take_lease: bool) -> Verdict:
        return run(planned, Worker(planned.folder), take_lease=take_lease)

    monkeypatch.setattr("pipeline.driver.run.run", without_ray)
    for expected, n_listings in (
        # A run that works lists the input again when it has the lease, and at its end.
        ("0 of 3 shards published already", 3),
        ("this run is finished: nothing to do", 1),
    ):
        assert main(["run", str(config)]) == 0
        assert expected in capsys.readouterr().out
        assert sorted(costs) == ["hash", *["list"] * n_listings]
        costs.clear()
    for command in (["validate", str(config)], ["run", str(config), "--dry-run"]):
        assert main(command) == 0
        assert costs == ["list", "hash"]
        costs.clear()
