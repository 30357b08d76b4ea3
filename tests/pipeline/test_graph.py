"""The whole graph on a real local Ray, with real media and the tiny model."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import ray

from omnitrace_core.errors import ConfigError, RunError
from pipeline.commands.ingest import ingest
from pipeline.config import RunConfig
from pipeline.driver.plan_run import plan_run
from pipeline.driver.ray_session import needed_cpus, ray_session
from pipeline.driver.run import run
from pipeline.graph import replica_model
from pipeline.planning.identified_run import identify_run
from pipeline.planning.identity import utc_today
from pipeline.recuration.plan import plan_recuration
from pipeline.recuration.recurate_run import run_recuration
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.verdict import Verdict, is_finished
from stages.arrow.table_schema import MASS_BUCKETS
from tests.pipeline.made_runs import row_keys, rows, write_input
from training.demo.corpus import faulty_rows, make_corpus

Row = dict[str, Any]


def _config(folder: Path, model_path: str, **sections: Any) -> RunConfig:
    tree: Row = {
        "input": {"path": str(folder / "input")},
        "output": {"path": str(folder / "output")},
        "run": {"chunk_samples": 4},
        "model": {"path": model_path, "device": "cpu"},
        "decode": {"max_new_tokens": 24},
        "trace": {"signals": ["attmean", "attraw"]},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return RunConfig.model_validate(tree)


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: str, local_ray: None
) -> tuple[PlannedRun, Verdict]:
    """The demo corpus with its faulty rows, ingested and run."""
    folder = tmp_path_factory.mktemp("demo")
    corpus = make_corpus(folder / "corpus", with_errors=True)
    ingest(str(corpus), str(folder / "input"), shard_rows=8)
    trace = {"store": "positions", "heatmaps": True}
    planned = plan_run(identify_run(_config(folder, tiny_model, trace=trace)))
    return planned, run(planned)


def test_every_row_is_published_once_with_the_code_of_its_fault(
    finished: tuple[PlannedRun, Verdict],
) -> None:
    planned, verdict = finished
    expected = Counter(code for _, code in faulty_rows())
    samples = rows(planned.folder, "samples")
    assert verdict.by_code == dict(expected)
    assert Counter(row["error_code"] for row in samples if row["status"] == "error") == expected
    assert verdict.n_ok + verdict.n_error == verdict.n_rows == len(samples)
    assert len(set(row_keys(planned.folder))) == len(samples)
    assert verdict.n_ok >= 12
    for row in samples:
        assert (row["message"] == "") == (row["status"] == "ok")
        assert len(set(row["notes"])) == len(row["notes"])
    assert planned.folder.names("_parts") == []


def test_good_samples_have_spans_whose_mass_adds_up(finished: tuple[PlannedRun, Verdict]) -> None:
    planned, _ = finished
    ok = {row["row_key"]: row for row in rows(planned.folder, "samples") if row["status"] == "ok"}
    spans = rows(planned.folder, "spans")
    assert {span["row_key"] for span in spans} == set(ok)
    for span in spans:
        response = ok[span["row_key"]]["response"]
        assert response[span["char_start"] : span["char_end"]] == span["text"]
        assert sum(span[f"mass_{bucket}"] for bucket in MASS_BUCKETS) == pytest.approx(1, abs=1e-3)
    named = {source["modality"] for span in spans for source in span["sources"]}
    assert named == {"text", "image", "audio", "video"}


def test_traces_are_kept_per_signal(finished: tuple[PlannedRun, Verdict]) -> None:
    planned, verdict = finished
    traces = rows(planned.folder, "traces")
    assert Counter(trace["signal"] for trace in traces) == {
        "attmean": verdict.n_ok,
        "attraw": verdict.n_ok,
    }
    for trace in traces:
        assert len(trace["mass"]) == trace["n_tokens"] * trace["n_units"]
        assert len(trace["pos"]) == len(trace["tokens"]) == trace["n_tokens"]


def test_duckdb_reads_the_tables(finished: tuple[PlannedRun, Verdict]) -> None:
    planned, _ = finished
    output = planned.identity.output.root
    query = f"select sample_id, span_index, unnest(sources) from '{output}/**/spans/*.parquet'"
    found = duckdb.execute(query).fetchall()
    assert len(found) == sum(len(span["sources"]) for span in rows(planned.folder, "spans"))


def test_curating_again_with_the_same_settings_gives_the_same_bytes(
    finished: tuple[PlannedRun, Verdict], tmp_path: Path
) -> None:
    planned, verdict = finished
    again = plan_recuration(planned.identity.output.root, str(tmp_path / "again"))
    done = run_recuration(again, workers=1)
    assert (done.n_ok, done.n_error, done.by_code) == (
        verdict.n_ok,
        verdict.n_error,
        verdict.by_code,
    )
    for table in ("spans", "traces", "heatmaps"):
        names = planned.folder.names(table)
        assert len(names) > 1
        assert again.folder.names(table) == names
        for name in names:
            old, new = (item.folder.read(f"{table}/{name}") for item in (planned, again))
            assert old == new


def test_mass_of_grid_cells_adds_up_to_that_of_the_image(
    finished: tuple[PlannedRun, Verdict], tmp_path: Path
) -> None:
    planned, _ = finished
    grid = ["units.image=grid", "units.grid=[2, 2]", "trace.heatmaps=false"]
    again = plan_recuration(planned.folder.root, str(tmp_path / "grid"), grid)
    run_recuration(again, workers=1)
    units = [unit for row in rows(again.folder, "samples") for unit in row["units"] or ()]
    assert {unit["kind"] for unit in units if unit["modality"] == "image"} == {"image_cell"}
    for old, new in zip(rows(planned.folder, "spans"), rows(again.folder, "spans"), strict=True):
        for bucket in MASS_BUCKETS:
            name = f"mass_{bucket}"
            assert new[name] == pytest.approx(old[name], abs=1e-5)
    seen: defaultdict[tuple[str, int], float] = defaultdict(float)
    for heat in rows(planned.folder, "heatmaps"):
        if heat["modality"] == "image":
            total = sum(heat["patches"]) * heat["scale"]
            seen[heat["row_key"], heat["span_index"]] += total
    for span in rows(planned.folder, "spans"):
        mass = seen[span["row_key"], span["span_index"]]
        assert mass == pytest.approx(span["mass_image"], abs=0.01)


def test_rerun_does_nothing(finished: tuple[PlannedRun, Verdict]) -> None:
    planned, verdict = finished
    again = plan_run(identify_run(planned.config, lambda: utc_today() + timedelta(days=1)))
    assert is_finished(again)
    assert run(again) == verdict


_RESPONSE = (
    "The pictures show what was asked for. The first one answers the question.\n"
    "What is heard and seen at the start says the rest."
)


@pytest.fixture(scope="module")
def real(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model: str, local_ray: None
) -> PlannedRun:
    """Five real samples, once without a response (the model generates one) and once with one."""
    folder = tmp_path_factory.mktemp("real")
    generated = json.loads((shared_data / "samples.json").read_text())
    replayed = [{**row, "id": f"{row['id']}-replayed", "response": _RESPONSE} for row in generated]
    (folder / "samples.json").write_text(json.dumps([*generated, *replayed]))
    ingest(str(folder / "samples.json"), str(folder / "input"), media_root=str(shared_data))
    planned = plan_run(
        identify_run(_config(folder, tiny_model, curation={"pools": "per_modality"}))
    )
    run(planned)
    return planned


def test_real_samples_have_no_errors(real: PlannedRun) -> None:
    samples = rows(real.folder, "samples")
    assert [(row["sample_id"], row["message"]) for row in samples if row["status"] != "ok"] == []
    assert len(samples) == 10
    replayed = {row["sample_id"]: row for row in samples if row["sample_id"].endswith("-replayed")}
    assert {row["response"] for row in replayed.values()} == {_RESPONSE}
    supported = {
        span["sample_id"]
        for span in rows(real.folder, "spans")
        if span["outcome"] == "supported" and span["sources"]
    }
    assert set(replayed) <= supported


def test_sources_lie_inside_the_real_media(real: PlannedRun) -> None:
    samples = {row["row_key"]: row for row in rows(real.folder, "samples")}
    n_replayed: Counter[str] = Counter()
    for span in rows(real.folder, "spans"):
        sample = samples[span["row_key"]]
        parts = [part for message in sample["messages"] for part in message["content"]]
        media = {item["part_index"]: item for item in sample["media"]}
        for source in span["sources"]:
            n_replayed[source["modality"]] += span["sample_id"].endswith("-replayed")
            part = parts[source["part_index"]]
            if source["modality"] == "text":
                text = part["text"][source["char_start"] : source["char_end"]]
                assert text == source["text"]
                continue
            item = media[source["part_index"]]
            assert item["type"] == part["type"]
            if source["box"] is not None:
                x0, y0, x1, y1 = source["box"]
                assert 0 <= x0 < x1 <= item["width"]
                assert 0 <= y0 < y1 <= item["height"]
            if source["start_s"] is not None:
                assert 0 <= source["start_s"] < source["end_s"] <= item["duration_s"] + 1e-6
    # Each modality has sources of replayed responses; generated ones may lack some.
    assert set(+n_replayed) == {"text", "image", "audio", "video"}


def test_stage_that_cannot_load_stops_the_run(
    tmp_path: Path, tiny_model: str, local_ray: None
) -> None:
    write_input(tmp_path / "input", a=["1"])
    planned = plan_run(identify_run(_config(tmp_path, tiny_model)))
    (Path(tiny_model) / "model.safetensors").rename(tmp_path / "away")
    try:
        with pytest.raises(RunError, match=r"a stage failed: .*BackendError"):
            run(planned)
    finally:
        (tmp_path / "away").rename(Path(tiny_model) / "model.safetensors")
    assert json.loads(planned.folder.read("verdict.json"))["exit_code"] == 1


def test_missing_gpus(tmp_path: Path, tiny_model: str, local_ray: None) -> None:
    config = _config(tmp_path, tiny_model, model={"gpus_per_replica": 1, "replicas": 64})
    with (
        pytest.raises(ConfigError, match=r"needs 64 GPUs and this machine has"),
        ray_session(config),
    ):
        pass
    assert ray.is_initialized()


def test_replica_without_a_gpu_stays_on_the_cpu(tmp_path: Path) -> None:
    for device, gpus, expected in (("auto", 0, "cpu"), ("auto", 1, "auto"), ("cuda", 1, "cuda")):
        config = _config(tmp_path, "m", model={"device": device, "gpus_per_replica": gpus})
        assert replica_model(config.model).device == expected


def test_local_ray_has_room_for_the_graph(tmp_path: Path) -> None:
    assert needed_cpus(_config(tmp_path, "model")) == 3
    many = _config(tmp_path, "model", model={"replicas": 3}, ray={"trace_cpus": 4})
    assert needed_cpus(many) == 14
