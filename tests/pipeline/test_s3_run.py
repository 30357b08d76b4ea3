"""Whole runs with input and output on a real S3 server."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from omnitrace_core.errors import StoreUnavailable
from pipeline.driver.run import run
from pipeline.run_folder.verdict import is_finished
from pipeline.storage.folder import Folder
from tests.pipeline.drivers import (
    REPOSITORY,
    assert_exactly_once,
    kill_group,
    make_case,
    wait_until,
)
from tests.pipeline.made_runs import (
    ALL_ROWS,
    Worker,
    config_for,
    planned_run,
    row_keys,
    rows,
    write_input,
)
from tests.pipeline.storage.faulty_proxy import Fault, Proxy, Rule

SHORT_RETRIES = Path(__file__).parent / "short_retries"
_NETWORK_FAULTS: list[Fault] = ["slow_down", "broken", "broken_after", "drop_before", "drop_after"]


def _upload(folder: Path, to: str) -> None:
    local = Folder(str(folder))
    for name in local.tree(""):
        local.copy(name, Folder(to))


def _download(folder: Folder, to: Path) -> Folder:
    local = Folder(str(to))
    for name in folder.tree(""):
        folder.copy(name, local)
    return local


def _on_s3(folder: Path, s3_folder: str, **sections: Any) -> Any:
    paths = {"input": {"path": f"{s3_folder}/input"}, "output": {"path": f"{s3_folder}/output"}}
    return config_for(folder, **paths, **sections)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_on_a_bad_network_gives_the_same_records(
    seed: int, folder: Path, s3_folder: str, proxy: Proxy
) -> None:
    local = planned_run(config_for(folder))
    run(local, Worker(local.folder))
    _upload(folder / "input", f"{s3_folder}/input")
    proxy.dice.seed(seed)
    proxy.rules += [Rule(fault, share=0.04) for fault in (*_NETWORK_FAULTS, "drop_within")]
    config = _on_s3(folder, s3_folder)
    planned = planned_run(config)
    verdict = run(planned, Worker(planned.folder))
    assert (verdict.exit_code, verdict.finished, verdict.n_rows) == (0, True, 6)
    assert is_finished(planned_run(config))
    assert proxy.faults.total() > 3
    proxy.clear()
    results = _download(planned.folder, folder / "copy")
    assert row_keys(results) == ALL_ROWS
    for table in ("samples", "spans", "traces"):
        assert rows(results, table) == rows(local.folder, table)
    assert planned.folder.names("_parts") == []


@pytest.mark.slow
def test_a_run_that_loses_its_storage_is_continued(
    folder: Path, s3_folder: str, proxy: Proxy
) -> None:
    _upload(folder / "input", f"{s3_folder}/input")
    config = _on_s3(folder, s3_folder)
    planned = planned_run(config)
    worker = Worker(planned.folder)

    def work(chunks: Any) -> Any:
        for index, committed in enumerate(worker(chunks)):
            if index == 1:
                proxy.rules.append(Rule("slow_down"))
            yield committed

    with pytest.raises(StoreUnavailable, match="start again: what was written is kept"):
        run(planned, work)
    proxy.clear()
    planned = planned_run(config)
    again = Worker(planned.folder)
    assert run(planned, again).finished
    assert not set(worker.done[:2]) & set(again.done)
    results = _download(planned.folder, folder / "copy")
    assert row_keys(results) == ALL_ROWS


def test_listing_shards_on_s3_needs_no_request_per_shard(
    folder: Path, s3_folder: str, proxy: Proxy
) -> None:
    write_input(folder / "input", **{f"s{index}": [f"id{index}"] for index in range(5)})
    _upload(folder / "input", f"{s3_folder}/input")
    config = _on_s3(folder, s3_folder)
    proxy.clear()
    from pipeline.planning.input_shards import list_input

    listing = list_input(config.input.path)
    assert len(listing.shards) == 8
    # HEAD and a listing of one key show that the path is a folder, not a file; then one listing.
    assert proxy.requests == {"HeadObject": 1, "ListObjectsV2": 2}
    assert listing.shards["a.parquet"] == listing.folder.identity("a.parquet")


def test_missing_credentials_end_a_run_before_any_work(
    folder: Path, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {name: value for name, value in os.environ.items() if "ACCESS_KEY" not in name}
    overrides = [f"input.path={s3_folder}/input", f"output.path={s3_folder}/output"]
    done = _omnitrace(folder, ["run", str(_file(folder)), *overrides], environment)
    assert done.returncode == 2, done.stderr
    assert "AWS_ACCESS_KEY_ID" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_the_graph_on_ray_reads_and_writes_s3(
    folder: Path, s3_folder: str, tiny_model: str
) -> None:
    """Ray is started by the run, so that its workers inherit the AWS variables."""
    _upload(folder / "input", f"{s3_folder}/input")
    overrides = [
        *(f"input.path={s3_folder}/input", f"output.path={s3_folder}/output"),
        *(f"model.path={tiny_model}", "model.device=cpu", "run.chunk_samples=2"),
        *("decode.max_new_tokens=8", "run.id=on-s3", "run.max_error_fraction=0.9"),
    ]
    done = _omnitrace(folder, ["run", str(_file(folder)), *overrides], dict(os.environ))
    assert done.returncode == 0, done.stderr
    runs = Folder(f"{s3_folder}/output")
    verdicts = [name for name in runs.tree("verdict.json") if "run_id=on-s3" in name]
    assert len(verdicts) == 1
    content = json.loads(runs.read(verdicts[0]))
    assert (content["finished"], content["n_rows"], content["n_error"]) == (True, 6, 2)
    results = _download(runs / verdicts[0].rpartition("/")[0], folder / "copy")
    assert row_keys(results) == ALL_ROWS
    again = _omnitrace(folder, ["run", str(_file(folder)), *overrides], dict(os.environ))
    assert again.returncode == 0, again.stderr


def _has_new_chunk_files(output: Folder, before: set[str]) -> bool:
    return bool(set(output.tree(".arrow")) - before)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.nightly
def test_drivers_killed_while_they_write_to_s3(
    tmp_path: Path, s3_folder: str, tiny_model: str
) -> None:
    ids = [f"s{number}" for number in range(16)]
    shards = {"a": ids[:8], "b": ids[8:]}
    case = make_case(tmp_path, tiny_model, shards, run={"chunk_samples": 1})
    case.tree["output"]["path"] = f"{s3_folder}/output"
    output = Folder(f"{s3_folder}/output")
    for _ in range(2):
        before = set(output.tree(".arrow"))
        driver = case.start()
        try:
            wait_until(partial(_has_new_chunk_files, output, before), driver)
            time.sleep(0.3 * random.SystemRandom().random())
            assert driver.poll() is None, case.log()
        finally:
            kill_group(driver)
    assert case.finish() == 0, case.log()
    _download(output, tmp_path / "output")
    assert set(assert_exactly_once(case).values()) == {""}


@pytest.mark.slow
@pytest.mark.ray
def test_lost_storage_ends_a_command_that_can_be_repeated(
    tmp_path: Path, s3_folder: str, proxy: Proxy, tiny_model: str
) -> None:
    """Driver and workers retry for a shorter time than usual; the lease lasts longer."""
    ids = [f"s{number}" for number in range(16)]
    case = make_case(tmp_path, tiny_model, {"a": ids[:8], "b": ids[8:]}, run={"lease_s": 60})
    case.env["PYTHONPATH"] = f"{SHORT_RETRIES}:{REPOSITORY}"
    case.tree["output"]["path"] = f"{s3_folder}/output"
    output = Folder(f"{s3_folder}/output")
    driver = case.start()
    try:
        wait_until(lambda: bool(output.tree(".arrow")), driver)
        proxy.rules.append(Rule("slow_down"))
        assert driver.wait(400) == 1, case.log()
    finally:
        kill_group(driver)
    (error,) = [line for line in case.output().splitlines() if line.startswith("omnitrace: ")]
    assert "object storage did not answer in 4 tries" in error
    assert "last error: SlowDown" in error
    assert "start again: what was written is kept" in error
    proxy.clear()
    assert output.tree(".arrow")
    assert case.finish() == 0, case.log()
    _download(output, tmp_path / "output")
    assert set(assert_exactly_once(case).values()) == {""}


def _file(folder: Path) -> Path:
    """A config file whose paths are overridden."""
    path = folder / "config.yaml"
    path.write_text("input: {path: in}\noutput: {path: out}\nmodel: {path: model}\n")
    return path


def _omnitrace(
    folder: Path, arguments: list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    environment = {**environment, "HOME": str(folder), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
