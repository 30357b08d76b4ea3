"""Drivers that are killed, stopped, started twice or out of disk space: each row is kept once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.pipeline.drivers import (
    Case,
    assert_exactly_once,
    kill_group,
    make_case,
    query,
    wait_until,
)
from tests.small_disk import grow, small_disk
from tests.stages.chunks import Row, text_row, write_shard

pytestmark = [pytest.mark.slow, pytest.mark.ray]

IDS = [f"s{number}" for number in range(24)]
# One repeats an id, one has none.
SHARDS: dict[str, list[str | Row | None]] = {
    "a": [*IDS[:9], None],
    "b": [*IDS[9:18], IDS[0]],
    "c": [*IDS[18:]],
}


# Of drivers with Ray; tests/pipeline/storm kills hundreds without it.
N_KILLS = 2


@pytest.fixture
def case(tmp_path: Path, tiny_model: str) -> Case:
    return make_case(tmp_path, tiny_model, SHARDS)


def assert_complete(case: Case) -> None:
    codes = assert_exactly_once(case)
    assert codes.pop("a.parquet:9") == "missing_sample_id"
    assert codes.pop("b.parquet:9") == "duplicate_sample_id"
    assert set(codes.values()) == {""}, codes


def test_drivers_killed_at_random(tmp_path: Path, tiny_model: str) -> None:
    """Two drivers: some are killed during their start, some after a few chunks."""
    shards = {name: [f"{name}{number}" for number in range(20)] for name in "abc"}
    case = make_case(tmp_path, tiny_model, shards, run={"chunk_samples": 1})
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    killed: list[tuple[int, int]] = []
    for _ in range(N_KILLS):
        driver = case.start()
        if chance.random() < 0.6:
            before = _n_done(case)
            wait_until(partial(_has_more, case, before), driver)
            time.sleep(chance.random() / 2)
        else:
            time.sleep(chance.random() * 6)
        assert driver.poll() is None, f"seed {seed}, {killed}: {case.log()}"
        kill_group(driver)
        killed.append((case.n_chunk_files(), case.published()))
    assert case.finish() == 0, f"seed {seed}, {killed}: {case.log()}"
    assert set(assert_exactly_once(case).values()) == {""}


def _n_done(case: Case) -> int:
    """Chunks that are committed, published ones included; a shard has 20."""
    return case.n_chunk_files() + 20 * case.published()


def _has_more(case: Case, n_done: int) -> bool:
    return _n_done(case) > n_done


def test_driver_that_is_stopped_by_sigterm(case: Case) -> None:
    driver = case.start()
    try:
        wait_until(case.at_work, driver)
        os.kill(driver.pid, signal.SIGTERM)
        assert driver.wait(200) == 4, case.log()
    finally:
        kill_group(driver)
    assert case.root is not None
    verdict = json.loads((case.root / "verdict.json").read_text())
    assert (verdict["exit_code"], verdict["finished"]) == (4, False)
    assert verdict["reason"].startswith("stopped by SIGTERM")
    assert json.loads((case.root / "_lease.json").read_text())["released"] is True
    assert case.finish() == 0, case.log()
    assert_complete(case)


@pytest.mark.parametrize(
    ("program", "lost"),
    [
        ("gcs_server", "control process"),
        pytest.param("raylet", "raylet", marks=pytest.mark.nightly),
    ],
)
def test_driver_whose_ray_dies(tmp_path: Path, tiny_model: str, program: str, lost: str) -> None:
    """Ray itself would end the driver after a minute, with code 1 and without a word."""
    shards = {name: [f"{name}{number}" for number in range(20)] for name in "ab"}
    case = make_case(tmp_path, tiny_model, shards, run={"chunk_samples": 1})
    driver = case.start()
    try:
        wait_until(case.at_work, driver)
        (process,) = [
            child
            for child in psutil.Process(driver.pid).children(recursive=True)
            if child.name() == program
        ]
        process.kill()
        assert driver.wait(200) == 4, case.log()
    finally:
        kill_group(driver)
    assert case.root is not None
    verdict = json.loads((case.root / "verdict.json").read_text())
    assert (verdict["exit_code"], verdict["finished"]) == (4, False)
    assert re.search(rf"Ray's .*{lost}.* is gone; the same command continues", verdict["reason"])
    assert verdict["reason"] in case.output()
    assert json.loads((case.root / "_lease.json").read_text())["released"] is True
    assert case.finish() == 0, case.log()
    assert set(assert_exactly_once(case).values()) == {""}


def test_two_drivers_on_one_output(case: Case) -> None:
    drivers = [case.start(), case.start()]
    try:
        codes = sorted(driver.wait(400) for driver in drivers)
    finally:
        for driver in drivers:
            kill_group(driver)
    assert codes == [0, 4], case.log()
    assert "is being worked on by process" in case.output()
    assert_complete(case)


def test_driver_that_is_suspended_past_its_lease(case: Case) -> None:
    """Its workers go on committing, and it resumes when another driver has done all work."""
    suspended = case.start()
    try:
        wait_until(case.at_work, suspended)
        os.kill(suspended.pid, signal.SIGSTOP)
        assert case.finish() == 0, case.log()
        assert_complete(case)
        assert case.root is not None
        before = {path: path.stat().st_mtime_ns for path in case.root.rglob("*.parquet")}
        os.kill(suspended.pid, signal.SIGCONT)
        assert suspended.wait(200) == 4, case.log()
        assert "lost the lease" in case.output() or "may not commit" in case.output()
        assert {path: path.stat().st_mtime_ns for path in case.root.rglob("*.parquet")} == before
    finally:
        kill_group(suspended)
    assert_complete(case)


def test_full_disk(case: Case) -> None:
    """A real file system of 160 KB, which grows afterwards."""
    with small_disk(case.folder / "output", "160k") as output:
        assert case.finish() == 1, case.log()
        assert "No space left on device" in case.output()
        # A worker that was ended with the run may leave a temporary file of its attempts.
        partial_files = [
            path for path in output.rglob("*.partial") if path.parent.name != "_attempts"
        ]
        assert not partial_files
        grow(output, "64m")
        assert case.finish() == 0, case.log()
        assert_complete(case)
        assert not list(output.rglob("*.partial"))


@pytest.mark.nightly
def test_input_and_settings_that_change_between_two_runs(case: Case) -> None:
    driver = case.start()
    wait_until(lambda: case.published() >= 1, driver)
    kill_group(driver)
    rows = [text_row(f"new{number}") for number in range(3)]
    write_shard(case.folder / "input" / "a.parquet", rows)
    assert case.finish() == 0, case.log()
    codes = assert_exactly_once(case)
    # The first row with this id is gone, so the second one is not a repetition.
    assert set(codes.values()) == {""}
    before = fingerprints(case)
    assert {sample for sample, _ in before} == {"new0", "new1", "new2", *IDS[9:], IDS[0]}
    case.tree["curation"] = {"p_min": 0.2}
    assert case.finish() == 0, case.log()
    assert set(assert_exactly_once(case).values()) == {""}
    after = fingerprints(case)
    assert {sample for sample, _ in after} == {sample for sample, _ in before}
    (old,), (new,) = ({made_by for _, made_by in found} for found in (before, after))
    assert case.root is not None
    content = json.loads((case.root / "run.json").read_text())
    assert (content["config"]["curation"]["p_min"], content["fingerprint"]) == (0.2, new)
    assert old != new


def fingerprints(case: Case) -> set[tuple[str, str]]:
    """Each published sample_id with the fingerprint of its settings."""
    return set(query(f"select sample_id, fingerprint from '{case.root}/samples/*.parquet'"))
