"""The benchmarks of scale, throughput and capacity run at tiny sizes; times are not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks import (
    capacity,
    capacity_measured,
    chunk_files,
    scale,
    scale_fake,
    scale_s3,
    throughput,
)
from benchmarks.scale_measure import counting_requests
from benchmarks.throughput_cpu import TreeTime
from benchmarks.throughput_paths import Measurement, collect
from pipeline.config import load_config
from pipeline.run_folder.attempt_log import StoredAttemptLog
from pipeline.run_folder.lease import hold_lease
from pipeline.storage.folder import Folder
from stages.guards.attempts import AttemptCounter
from tests.pipeline.storage.s3_server import binary

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_paper_is_killed_and_resumed_and_then_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "paper.json"
    keep = tmp_path / "kept"
    arguments = f"paper --chunks 12 --shards 3 --workers 1 --keep {keep} --output {output}"
    scale.main(arguments.split())
    (result,) = json.loads(output.read_text())["results"]
    killed, resumed = (result["stages"][name] for name in ("killed", "resumed"))
    assert [stage["stage"] for stage in killed] == ["plan", "run", "publish"]
    assert killed[1]["rss_mib"][-1][0] == 6
    assert all(stage["peak_mib"] > 0 for stage in resumed)
    n_read = sum(stages[2]["requests"].get("get", 0) for stages in (killed, resumed))
    assert n_read == 12 + 3 * 3, "each chunk file once, and the lease three times for each shard"
    assert "killed: publish" in capsys.readouterr().out
    monkeypatch.setattr(scale, "driver", lambda _order: pytest.fail("a finished stage is repeated"))
    scale.main(arguments.split())
    assert json.loads(output.read_text())["results"] == [result], "finished stages are not repeated"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.nightly
def test_chunks_pass_through_the_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "graph.json"
    arguments = f"graph --chunks 6 --shards 2 --window 4 --folder {tmp_path} --output {output}"
    scale.main(arguments.split())
    result = json.loads(output.read_text())["results"]
    run = next(stage for stage in result["stages"] if stage["stage"] == "run")
    assert [done for done, _ in run["rss_mib"]] == [0, *range(1, 7), 6]
    assert "6 chunks in windows of 4" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(binary() is None, reason="SeaweedFS is not installed")
def test_requests_to_s3_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SHARDS", "_CHUNKS"):
        monkeypatch.setattr(scale_s3, name, 2)
    figures, table = scale_s3.measure_s3(tmp_path, 3)
    chunks = figures["by_part"]["chunks"]
    assert chunks["put_object"] >= 8, "an attempt and a chunk file of each of four chunks"
    rerun = figures["rerun"]["requests"]
    assert rerun["get_object"] <= 3, "only the run's day, verdict and lease; no manifest, no shard"
    assert rerun["list_objects_v2"] <= 7, "the input, the manifests and the tables"
    assert rerun.keys() <= {"get_object", "list_objects_v2", "head_object"}
    assert "nothing to do, 3 shards" in table


def test_ids_are_measured_in_a_separate_process() -> None:
    found, table = scale.measure_ids([2000])
    assert found[0]["rows"] == 2000
    assert found[0]["spilled_bytes"] == 0
    assert "2000" in table


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.nightly
def test_throughput_of_all_paths_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "throughput.json"
    arguments = f"--actors 1 --rounds 1 --chunks 3 --chunk-samples 2 --folder {tmp_path}"
    throughput.main([*arguments.split(), "--output", str(output)])
    results = json.loads(output.read_text())["results"]
    assert [row["path"] for row in results] == ["core", "stages", "graph"]
    assert all(row["rate"] > 0 and row["cpu_ms"] > 0 for row in results)
    assert results[1]["rounds"][0]["stage_ms"]["TraceDecode"] > 0
    assert "1 actors:" in capsys.readouterr().out


def test_rates_are_those_after_the_start() -> None:
    graph = Measurement(1.0, (4.0, 5.0, 7.0, 9.0), (10.0, 11.0, 12.0, 15.0), 10, 2, {}, {})
    assert graph.start_s == 5.0
    assert graph.rate == pytest.approx(20 / 4.0)
    assert graph.cpu_ms == pytest.approx(1e3 * 4.0 / 20)
    core = Measurement(1.0, (4.0, 5.0, 6.0), (0.0, 1.0, 2.0), 10, 1, {}, {})
    slow = Measurement(1.0, (4.0, 6.0, 8.0), (0.0, 1.0, 2.0), 10, 1, {}, {})
    verdicts = throughput.verdicts({("core", 1): [core], ("graph", 1): [slow]})
    assert verdicts == ["1 actors: 0.50 of the bare loop; 0.90 MISSED, aim 0.95"]


def test_chunks_before_the_last_worker_is_ready_are_counted() -> None:
    messages = iter([None, {"trace": 1.0}, {"trace": 2.0}, None, {"trace": 4.0}])
    recorded: list[float] = []
    spent: Counter[str] = Counter()
    begun = time.perf_counter() - 100
    ready_s = collect(
        lambda: next(messages), 2, 3, begun, lambda: recorded.append(spent["trace"]), spent
    )
    assert recorded == [1.0, 3.0, 7.0]
    assert spent == {"trace": 7.0}
    assert ready_s > 100
    assert list(messages) == []


def test_processor_time_counts_children() -> None:
    cpu_s = TreeTime()
    before = cpu_s()
    subprocess.run([sys.executable, "-c", "sum(range(10**6))"], check=True)
    sum(i * i for i in range(2_000_000))
    assert before < cpu_s() < before + 60
    assert sum(cpu_s.by_name().values()) == pytest.approx(cpu_s(), abs=1.0)


def test_fake_records_fit_the_schema(tmp_path: Path) -> None:
    """The committed records can be published and read; `commit_chunk` checks the rows."""
    from pipeline.planning.input_shards import list_input, scan_input
    from pipeline.planning.plan import make_plan
    from pipeline.run_folder.publish import publish_shard
    from pipeline.storage.folder import Folder

    scale_fake.write_input(str(tmp_path / "input"), 5, 1)
    plan = make_plan(scan_input(list_input(str(tmp_path / "input"))), "f", 2, {})
    (shard,) = plan.shards
    for chunk in plan.chunks(shard):
        assert scale_fake.do_chunk(chunk, str(tmp_path / "run"))["n_error"] == 0
    tables = ("samples", "spans", "traces")
    manifest = publish_shard(Folder(str(tmp_path / "run")), plan, shard, tables)
    assert (manifest.n_ok, manifest.n_spans) == (5, 10)
    (traces,) = (tmp_path / "run" / "traces").iterdir()
    masses = pq.read_table(traces).column("mass").to_pylist()
    assert len({tuple(row) for row in masses}) == 5, "equal rows would compress too well"


def test_the_document_has_the_tables_that_the_program_prints() -> None:
    document = (ROOT / "docs" / "capacity.md").read_text()
    for table in capacity.tables().split("\n\n"):
        assert table in document, "run `python -m benchmarks.capacity` and copy its tables"


def test_costs_follow_their_assumptions() -> None:
    found = capacity.Measured(
        tracing=1.0,
        graph=0.5,
        decode_s=0.3,
        rest_s=0.06,
        puts=2.0,
        gets=4.0,
        shard_puts=16.0,
        shard_gets=0.0,
        publish=((0.0, 0.0), (0.9216, 1.28)),
        publish_turns=32.0,
        plan_row_s=3.6e-6,
        plan_shard_s=0.0,
        ids_mib=((0.0, 0.0), (20_000.0, 200.0)),
        driver_mib=700.0,
        shard_mib=20.0,
        ray_mib=60.0,
        window_mib=0.4,
    )
    graph = capacity.Graph(chunk=64, window=100, cpus=52.0, gpus=2.0, beside=40.0)
    assumed = {
        "prompt": 0.0,
        "prefill": 1.0,
        "response": 90.0,
        "decode": 500.0,
        "busy": 0.9,
        "units": 10.0,
        "packed": 0.0,
        "own": 24.0,
        "wait": 0.0,
    }
    assumed |= {"gpu": 10.0, "cpu": 1.0, "put": 1.0, "get": 0.5, "keep": 0.0}

    def values(shard: int = 1000) -> dict[str, float]:
        found_lines = capacity.lines(found, graph, shard)
        return {line.label: line.value(10_000, assumed.__getitem__) for line in found_lines}

    value = values()
    gpu_h = 10_000 * 0.4 / 3600
    assert value["GPU-hours"] == pytest.approx(gpu_h)
    assert value["busy CPU cores per GPU"] == pytest.approx(0.9)
    assert value["reserved CPU cores per GPU"] == 26
    beyond = value["dollars for cores beyond those of the GPU nodes"]
    assert beyond == pytest.approx(2 * gpu_h)
    assert value["extra dollars with the other stages on decode nodes"] == pytest.approx(20 * gpu_h)
    assert value["decode_actors needed per GPU"] == 2
    assert value["PUT and LIST requests"] == pytest.approx(10_000 / 64 * 2 + 10 * 16)
    paid = value["GPU dollars"] + beyond + value["request dollars"]
    assert value["total dollars without storage"] == pytest.approx(paid)
    assert value["hours to plan, at each start"] == pytest.approx(1e-5)
    assert value["GB of memory of the driver"] == pytest.approx(1100 * 2**20 / 1e9)
    assert value["GPUs that publishing keeps up with"] == pytest.approx(0.4 / 0.01)
    assumed["wait"] = 100.0
    # Eight threads read chunk files ahead; the sequential requests of a shard count in full.
    slow_store = values(shard=640)
    assert slow_store["hours of publishing, by the driver"] * 3600 == pytest.approx(
        10_000 / 64 * max(0.64, 0.0375) + 10_000 / 640 * 3.2
    )
    assert slow_store["hours to plan, at each start"] * 3600 == pytest.approx(
        0.036 + 10_000 / 640 * 0.0375
    )


def test_memory_per_shard_comes_from_runs_of_two_sizes() -> None:
    def ran(shards: int, chunks: int, peak_mib: float) -> dict[str, Any]:
        return {"shards": shards, "chunks": chunks, "stages": {"run": [{"peak_mib": peak_mib}]}}

    ids = [{"rows": 1_000_000, "grew_mib": 40.0}]
    found = capacity_measured.driver_memory([ran(100, 1000, 401.0), ran(1100, 500_000, 426.0)], ids)
    assert found["shard_mib"] == pytest.approx((426 - 20 - (401 - 0.04)) / 1000)
    assert found["driver_mib"] == pytest.approx(401 - 0.04 - 100 * found["shard_mib"])


def test_memory_per_chunk_comes_from_the_window() -> None:
    samples = [[0, 400.0], [100, 600.0], [5000, 1020.0], [5000, 900.0]]
    plan, run = {"stage": "plan", "peak_mib": 400.0}, {"stage": "run", "rss_mib": samples}
    result = {"chunks": 5000, "window_chunks": 1100, "stages": [plan, {**run, "peak_mib": 1030.0}]}
    found = capacity_measured.graph_memory(result)
    assert found == {"ray_mib": 200.0, "window_mib": pytest.approx(0.43)}


def test_an_attempt_costs_the_requests_that_capacity_adds(tmp_path: Path) -> None:
    """For the stages that decode media and find speech, which scale-s3 does not run."""
    folder = Folder(str(tmp_path))
    with counting_requests() as requests, hold_lease(Folder(str(tmp_path)), 60.0) as lease:
        attempts = AttemptCounter("chunk_audio", StoredAttemptLog(folder, lease.claim))
        with requests.labelled("attempt"):
            attempts.begin("chunk").finish()
    counted = requests.counts["attempt"]
    assert counted["put"] == capacity_measured.ATTEMPT_PUTS
    # The read of an earlier count finds no file, so it is not counted here.
    assert counted["get"] + 1 == capacity_measured.ATTEMPT_GETS
    assert counted["delete"] == 1
    assert counted.keys() == {"put", "get", "delete"}
    config = load_config(str(capacity_measured.CONFIG))
    assert config.units.audio == "chunks", "or ChunkSpeech would count nothing"


def test_chunk_file_is_equal_in_every_format(tmp_path: Path) -> None:
    records = chunk_files.chunk_records(tmp_path, 3)
    assert records.num_rows == 3
    assert chunk_files.from_parquet(chunk_files.as_parquet(records)).equals(records)
    for compression in (None, "lz4"):
        assert chunk_files.from_arrow(chunk_files.as_arrow(records, compression)).equals(records)
