"""Workers and nodes that die under a run, and samples that kill what touches them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.pipeline.drivers import (
    REPOSITORY,
    assert_exactly_once,
    kill_group,
    make_case,
    wait_until,
)

pytestmark = pytest.mark.slow

DEADLY = Path(__file__).parent / "deadly"


def processes(stage: str, root: psutil.Process) -> list[psutil.Process]:
    """Ray's actors of a stage below this process, by the title that Ray gives them."""
    found = []
    for process in root.children(recursive=True):
        try:
            if f"({stage})" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_actors_that_are_killed(tmp_path: Path, tiny_model: str) -> None:
    """A decoder's actor as soon as it is there, the model's in the middle of the work."""
    ids = [f"s{number}" for number in range(16)]
    case = make_case(tmp_path, tiny_model, {"a": ids[:8], "b": ids[8:]})
    driver = case.start()
    root = psutil.Process(driver.pid)
    killed = []
    try:
        for stage, due in (
            ("DecodeMedia", lambda: bool(processes("DecodeMedia", root))),
            ("TraceDecode", case.at_work),
        ):
            wait_until(due, driver)
            for process in processes(stage, root):
                process.send_signal(signal.SIGKILL)
                killed.append(stage)
        assert driver.wait(300) == 0, case.log()
    finally:
        kill_group(driver)
    assert killed == ["DecodeMedia", "TraceDecode"]
    assert set(assert_exactly_once(case).values()) == {""}


def test_samples_that_kill_their_actor_every_time(tmp_path: Path, tiny_model: str) -> None:
    ids = ["s0", "s1", "deadly-2", "poison-3", "s4", "unready-5"]
    case = make_case(tmp_path, tiny_model, {"a": ids}, run={"chunk_samples": 3})
    case.env["PYTHONPATH"] = f"{DEADLY}:{REPOSITORY}"
    assert case.finish(timeout_s=500) == 0, case.log()
    codes = assert_exactly_once(case)
    quarantined = {key for key, code in codes.items() if code == "quarantined"}
    assert quarantined == {"a.parquet:2", "a.parquet:3", "a.parquet:5"}
    assert {code for key, code in codes.items() if key not in quarantined} == {""}
    assert case.root is not None
    verdict = json.loads((case.root / "verdict.json").read_text())
    assert verdict["by_code"] == {"quarantined": 3}
    assert verdict["by_stage"] == {"trace_decode": 3}


@contextmanager
def two_nodes() -> Iterator[tuple[str, int]]:
    """Address of a Ray cluster, and the raylet of its second node."""
    command = [sys.executable, str(Path(__file__).parent / "two_nodes.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as cluster:
        assert cluster.stdout is not None
        assert cluster.stdin is not None
        stop = threading.Timer(120, cluster.kill)
        stop.start()
        told = json.loads(next(line for line in cluster.stdout if line.startswith("{")))
        stop.cancel()
        try:
            yield told["address"], told["raylets"][0]
        finally:
            cluster.stdin.close()
            cluster.wait(60)


def test_node_that_is_lost(tmp_path: Path, tiny_model: str) -> None:
    ids = [f"s{number}" for number in range(24)]
    case = make_case(tmp_path, tiny_model, {"a": ids[:12], "b": ids[12:]})
    case.tree["model"]["replicas"] = 2
    with two_nodes() as (address, raylet):
        driver = case.start("--address", address)
        try:
            wait_until(case.at_work, driver)
            os.kill(raylet, signal.SIGKILL)
            assert driver.wait(400) == 0, case.log()
        finally:
            kill_group(driver)
    assert set(assert_exactly_once(case).values()) == {""}
