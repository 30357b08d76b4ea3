"""Workers and nodes that die during a run, and samples that kill their worker."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.core.media_files import image_bytes
from tests.pipeline.drivers import (
    REPOSITORY,
    Case,
    assert_exactly_once,
    kill_group,
    make_case,
    wait_until,
)
from tests.pipeline.local_cluster import LocalCluster, local_cluster
from tests.stages.chunks import user

pytestmark = [pytest.mark.slow, pytest.mark.ray]

KILLING_SAMPLES = Path(__file__).parent / "killing_samples"
BLOCKED_STAGES = Path(__file__).parent / "blocked_stages"
STAGES = ("DecodeMedia", "ChunkSpeech", "TraceDecode", "CurateSpans")


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


def hold(case: Case, **first: int) -> Path:
    """Make each actor hold its chunks from these numbers on, until the returned file is deleted.

    See `blocked_stages/sitecustomize.py`.
    """
    file = case.folder / "blocked" / "first.json"
    file.parent.mkdir()
    file.write_text(json.dumps(first))
    case.env |= {"PYTHONPATH": f"{BLOCKED_STAGES}:{REPOSITORY}", "BLOCKED_STAGES": str(file)}
    return file


def holders(block_file: Path, stage: str, root: psutil.Process) -> list[psutil.Process]:
    """Actors of a stage below this process that hold a chunk."""
    keep = {path.name for path in block_file.parent.glob(f"{stage}.*")}
    return [process for process in processes(stage, root) if f"{stage}.{process.pid}" in keep]


def test_killed_actors(tmp_path: Path, tiny_model: str) -> None:
    """One actor of each stage is killed, all at once, while each holds a chunk of pictures."""
    data = image_bytes(Image.new("RGB", (64, 48), "red"))
    message = user({"type": "image", "data": data}, {"type": "text", "text": "What is it?"})
    rows = [{"sample_id": f"s{number}", "messages": [message]} for number in range(16)]
    case = make_case(tmp_path, tiny_model, {"a": rows[:8], "b": rows[8:]})
    block_file = hold(case, DecodeMedia=5, ChunkSpeech=4, TraceDecode=3, CurateSpans=2)
    driver = case.start()
    root = psutil.Process(driver.pid)
    try:
        wait_until(
            lambda: case.at_work() and all(holders(block_file, stage, root) for stage in STAGES),
            driver,
        )
        assert (case.n_chunk_files(), case.published()) == (1, 0), case.log()
        victims = [holders(block_file, stage, root) for stage in STAGES]
        assert [len(actors) for actors in victims] == [1, 1, 1, 1]
        for (actor,) in victims:
            actor.kill()
        block_file.unlink()
        assert driver.wait(400) == 0, case.log()
    finally:
        kill_group(driver)
    assert set(assert_exactly_once(case).values()) == {""}


def test_samples_that_kill_their_actor_every_time(tmp_path: Path, tiny_model: str) -> None:
    ids = ["s0", "s1", "kill-in-trace-2", "break-device-3", "s4", "kill-in-encode-5"]
    case = make_case(tmp_path, tiny_model, {"a": ids}, run={"chunk_samples": 3})
    case.env["PYTHONPATH"] = f"{KILLING_SAMPLES}:{REPOSITORY}"
    assert case.finish(timeout_s=500) == 0, case.log()
    codes = assert_exactly_once(case)
    quarantined = {key for key, code in codes.items() if code == "quarantined"}
    assert quarantined == {"a.parquet:2", "a.parquet:3", "a.parquet:5"}
    assert {code for key, code in codes.items() if key not in quarantined} == {""}
    assert case.root is not None
    verdict = json.loads((case.root / "verdict.json").read_text())
    assert verdict["by_code"] == {"quarantined": 3}
    assert verdict["by_stage"] == {"trace_decode": 3}


def test_model_that_kills_its_process_when_it_is_loaded(tmp_path: Path, tiny_model: str) -> None:
    """As on a machine with too little memory; Ray itself would load it without end."""
    case = make_case(tmp_path, tiny_model, {"a": ["s0", "s1"]})
    case.env |= {
        "PYTHONPATH": f"{KILLING_SAMPLES}:{REPOSITORY}",
        "KILL_IN_LOAD": f"{case.folder}/loads",
    }
    assert case.finish(timeout_s=500) == 1, case.log()
    assert f"the process that loads model.path={tiny_model} died 5 times in a row" in case.output()
    assert (case.folder / "loads").read_text() == "x" * 5
    assert case.n_chunk_files() == case.published() == 0
    del case.env["KILL_IN_LOAD"]
    assert case.finish() == 0, case.log()
    assert set(assert_exactly_once(case).values()) == {""}


def test_lost_node(tmp_path: Path, tiny_model: str) -> None:
    """A node is lost while its models hold chunks; the head has too few CPUs for the graph."""
    ids = [f"s{number}" for number in range(24)]
    case = make_case(tmp_path, tiny_model, {"a": ids[:12], "b": ids[12:]})
    case.tree["model"]["replicas"] = 2
    block_file = hold(case, TraceDecode=2)
    with local_cluster(1, {**os.environ, **case.env}) as cluster:
        node = cluster.add_node(3)
        driver = case.start("--address", cluster.address)
        try:
            wait_until(
                lambda: case.at_work() and bool(holders(block_file, "TraceDecode", node)), driver
            )
            lose(case, cluster, node, block_file)
            cluster.add_node(3)
            assert driver.wait(400) == 0, case.log()
        finally:
            kill_group(driver)
    assert set(assert_exactly_once(case).values()) == {""}


def test_run_that_waits_for_capacity_and_loses_all_of_it(tmp_path: Path, tiny_model: str) -> None:
    """A head without CPUs: a node is added and lost at work; later another is added."""
    ids = [f"s{number}" for number in range(24)]
    case = make_case(tmp_path, tiny_model, {"a": ids[:12], "b": ids[12:]})
    block_file = hold(case, TraceDecode=2)
    # Ray gives up after half an hour without progress by default; this makes it 3 s.
    case.env["RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S"] = "3"
    log = case.folder / "log"
    no_capacity = (
        "waiting for capacity: the graph needs 0 GPUs and 1.95 CPUs, the cluster has 0 GPUs "
        "and 0 CPUs"
    )
    with local_cluster(0, {**os.environ, **case.env}) as cluster:
        driver = case.start("--address", cluster.address)
        try:
            wait_until(lambda: no_capacity in log.read_text(), driver)
            assert no_capacity in log.read_text()
            assert not case.at_work()
            node = cluster.add_node(3)
            wait_until(
                lambda: case.at_work() and bool(holders(block_file, "TraceDecode", node)), driver
            )
            lose(case, cluster, node, block_file)
            log_length, committed = len(log.read_text()), case.n_chunk_files()
            wait_until(lambda: no_capacity in log.read_text()[log_length:], driver)
            assert no_capacity in log.read_text()[log_length:]
            assert case.n_chunk_files() == committed
            cluster.add_node(3)
            assert driver.wait(400) == 0, case.log()
        finally:
            kill_group(driver)
    assert set(assert_exactly_once(case).values()) == {""}


def lose(case: Case, cluster: LocalCluster, node: psutil.Process, block_file: Path) -> None:
    """Kill a node whose models hold chunks; then let all other actors go on.

    block_file: the file that `hold` returned.
    """
    assert holders(block_file, "TraceDecode", node), case.log()
    assert 0 < case.n_chunk_files() < 12
    assert case.published() == 0
    actors = [actor for stage in STAGES for actor in processes(stage, node)]
    cluster.kill_node(node)
    assert psutil.wait_procs(actors, timeout=60)[1] == []
    block_file.unlink()
