"""The benchmarks run at tiny size; times are not asserted."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import (
    compare_runs,
    full_size,
    media,
    media_cost,
    parsing,
    precision,
    speech,
    speech_windows,
    texts,
    tracing,
)
from benchmarks.tracing import main
from benchmarks.tracing_cases import PAPER, Case, Mode, Result, Settings, job_from_json, job_to_json
from benchmarks.tracing_child import Runner, measure
from benchmarks.tracing_references import spread
from benchmarks.tracing_report import Report
from tests.core.media_files import audio_bytes, beep

pytestmark = pytest.mark.slow

SETTINGS = Settings(
    size="tiny",
    device="cpu",
    dtype="float32",
    tokens=5,
    repeats=2,
    case_s=60.0,
    gradient_steps=2,
    threads=1,
    rows_mib=1,
    seed=0,
)
PLAIN = Case("plain", 96, 1)
TRACED = Case("traced", 96, 1, PAPER)


@pytest.mark.parametrize("batch", [1, 3])
def test_traced_and_plain_generation_are_measured(batch: int) -> None:
    plain, traced = (
        measure(dataclasses.replace(case, batch=batch), SETTINGS) for case in (PLAIN, TRACED)
    )
    assert len(plain.generate_s) == len(traced.generate_s) == len(traced.added_s) == 2
    assert plain.added_s == ()
    assert traced.peak_bytes >= traced.built_bytes > 0
    report = Report(SETTINGS, [plain, traced])
    assert report.time_ratio(traced) == pytest.approx(traced.total / traced.generation)
    assert report.memory_ratio(traced) == traced.peak_bytes / plain.peak_bytes
    assert "traced three together" in report.table()


@pytest.mark.parametrize(("mode", "rows"), [("eager", 5), ("per-token", 2)])
def test_slow_methods_give_the_same_rows(mode: Mode, rows: int) -> None:
    result = measure(Case(mode, 96, 1), SETTINGS)
    assert result.parity is not None
    assert result.parity.difference < 1e-4
    assert result.parity.same_argmax == result.parity.rows == rows
    assert f"same argmax in {rows} of {rows} rows" in Report(SETTINGS, [result]).table()


def test_eager_that_does_not_fit_is_skipped() -> None:
    result = measure(Case("eager", 1_000_000, 1), SETTINGS)
    assert "GiB are free" in result.skipped
    assert "skipped: needs about" in Report(SETTINGS, [result]).table()


def test_command_measures_in_a_separate_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results" / "tracing.json"
    arguments = "--quick --size tiny --modes traced --prompts 64 --threads 1 --signals attmean"
    main([*arguments.split(), "--output", str(output)])
    (row,) = json.loads(output.read_text())["results"]
    assert row["case"] == {"mode": "traced", "prompt": 64, "batch": 1, "signals": ["attmean"]}
    assert row["skipped"] == ""
    assert len(row["added_s"]) == 3
    assert "traced attmean" in capsys.readouterr().out


def test_a_stopped_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases in the output are kept unchanged; skipped ones are measured again."""
    output = tmp_path / "tracing.json"
    found = Result(Case("plain", 64, 1), "", (1.5,), (), 5, 9)
    skipped = Result(TRACED, skipped="no memory")
    ran: list[Case] = []

    def measured(case: Case, settings: Settings, one_process: bool) -> Result:
        ran.append(case)
        return skipped if len(ran) == 2 else dataclasses.replace(found, case=case)

    monkeypatch.setattr(tracing, "run", measured)
    arguments = "--modes plain traced --prompts 64 --batches 1 --signals attmean attraw"
    command = [*arguments.split(), "--output", str(output)]
    main(command)
    assert len(ran) == 3
    before = json.loads(output.read_text())["results"]
    main([*command, "--resume"])
    assert ran[3:] == [Case("traced", 64, 1, ("attmean",))]
    after = json.loads(output.read_text())["results"]
    assert [row for row in before if not row["skipped"]] == after[:2]
    assert len(after) == 3
    with pytest.raises(SystemExit, match="other settings"):
        main([*command, "--resume", "--tokens", "3"])


def test_targets_are_met_missed_or_not_measured() -> None:
    mib = 2**20
    settings = dataclasses.replace(SETTINGS, tokens=64)
    results = [
        Result(Case("plain", 6_000, 1), "", (10.0,), (), 500 * mib, 1_000 * mib),
        Result(Case("traced", 6_000, 1, ("attmean",)), "", (10.0,), (0.3,), 500 * mib, 1_020 * mib),
        Result(Case("traced", 6_000, 1, PAPER), "", (10.0,), (1.5,), 500 * mib, 1_030 * mib),
        Result(Case("eager", 6_000, 1), "", (60.0,), (1.0,), 500 * mib, 11_000 * mib),
        Result(Case("traced", 500, 1, ("attgrads",)), "", (1.0,), (0.1,), 500 * mib, 600 * mib),
        Result(Case("per-token", 500, 1), "", (), (20.0,), 500 * mib, 900 * mib),
        Result(Case("plain", 6_000, 8), skipped="exit status -9: no message"),
    ]
    is_met = {target.name: target.is_met for target in Report(settings, results).targets()}
    assert is_met == {
        "traced attgrads / plain: time": None,
        "traced attgrads / plain: peak memory": None,
        "traced attmean / plain: time": True,
        "traced attmean / plain: peak memory": True,
        "traced three together / plain: time": False,
        "traced three together / plain: peak memory": True,
        "eager / traced attmean: time": True,
        "eager / traced attmean: working memory": False,
        "per-token / attgrads: added time": True,
    }


def test_jobs_are_read_from_their_json() -> None:
    assert job_from_json(job_to_json(TRACED, SETTINGS)) == (TRACED, SETTINGS)


def test_measured_steps_span_the_response() -> None:
    assert spread(64, 2) == [0, 63]
    assert spread(64, 3) == [0, 31, 63]
    assert spread(64, 1) == [32]
    assert spread(2, 5) == [0, 1]


def test_bfloat16_rows_are_within_one_percent_of_the_weights_own(tiny_model: str) -> None:
    """With precision float32 every signal; with precision model only those of attention."""
    found = precision.differences(tiny_model)
    assert set(found) == {"attmean", "attraw", "attgrads", "attnorm", "attodds", "attboth"}
    for name, (narrow, wide, eager) in found.items():
        assert 0 < wide < 0.01, name
        assert narrow < eager, "more precise than eager attention on the same weights"
        assert narrow < (0.03 if name in ("attgrads", "attodds", "attboth") else 0.01), name


def test_media_are_measured_beside_the_bare_libraries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "media.json"
    media.main(["--round-s", "0", "--rounds", "1", "--output", str(output)])
    content = json.loads(output.read_text())
    kinds = [row["name"].split()[0] for row in content["results"]]
    assert kinds == ["image", "image", "audio", "audio", "video", "the", "video", "speech"]
    assert all(row["bare_per_s"] > 0 and row["ours_per_s"] > 0 for row in content["results"])
    assert content["child"]["large_ms"] > 0
    assert "speech (vad)" in capsys.readouterr().out


def test_the_cost_of_a_file_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wav, short = tmp_path / "a.wav", tmp_path / "short.wav"
    for path, duration_s in ((wav, 120), (short, 1)):
        path.write_bytes(audio_bytes(beep(duration_s, [0], 44_100), 44_100))
    file = media_cost.CostFile("a", "audio", wav, short, 2.0, ())
    _, ours = media_cost.measure_file(file, media_cost.OURS, "{}")
    # Two minutes at the model's rate are 7 MiB.
    assert ours.peak_mib > 6
    media_cost.main(["soundfile_audio", "audio", str(wav), str(short), "{}"])
    bare = media_cost.Cost(**json.loads(capsys.readouterr().out)["cost"])
    assert min(ours.cpu_s, bare.cpu_s) > 0
    before = media_cost.read_costs(media.BEFORE)
    name = "WAV 30 s, 44.1 kHz"
    assert f"{before[name]['ours'].cpu_s:.3f}" in media_cost.table({name: {"ours": ours}}, before)


def test_speech_is_measured_in_batches_and_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("funasr", reason="needs the extra paraformer")
    output = tmp_path / "speech.json"
    few = ["--sounds", "2", "--rounds", "1", "--batch-s", "60"]
    speech.main([*few, "--output", str(output)])
    rows = json.loads(output.read_text())["results"]
    assert [row["engine"] for row in rows] == ["paraformer", "whisper"]
    assert all(row["together"] > 0 for row in rows)
    assert "ratio" in capsys.readouterr().out


def test_word_errors_are_counted() -> None:
    said = ["a", "man", "walks", "through", "the", "dark", "forest"]
    assert speech_windows.word_errors(said, said) == 0
    assert (
        speech_windows.word_errors(said, ["the", "man", "walks", "the", "dark", "dark", "forests"])
        == 4
    )
    assert speech_windows.word_errors(said, []) == 7


@pytest.mark.parametrize("case", parsing.CASES)
def test_parsing_is_measured_by_step(case: str) -> None:
    found = parsing.measure(case, n_samples=2, rounds=1)
    assert tuple(found) == parsing.STEPS
    assert min(found.values()) > 0


def test_texts_have_the_same_analyses_in_all_ways() -> None:
    ways = {way: texts.measure(way, n_samples=6, rounds=1) for way in texts.WAYS}
    assert len({way["digest"] for way in ways.values()}) == 1
    assert all(float(way["read_ms"]) > 0 for way in ways.values())


def test_the_full_size_program_runs_at_tiny_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "found.json"
    shape = ["--prompts", "96", "--batches", "2", "--tokens", "4", "--repeats", "1"]
    place = ["--size", "tiny", "--device", "cpu", "--dtype", "float32", "--output", str(output)]
    full_size.main([*shape, *place])
    found = json.loads(output.read_text())["results"]
    assert [row["signals"] for row in found] == [[], *(list(names) for names in full_size.SETS)]
    assert all(row["seconds"] > 0 and row["limit_distance"] > 0 for row in found)
    assert "attboth+attmean" in capsys.readouterr().out


def test_a_full_size_run_whose_time_is_over_keeps_its_results(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    place = ["--size", "tiny", "--device", "cpu", "--dtype", "float32", "--output", str(output)]
    full_size.main([*place, "--prompts", "96", "200", "--batches", "1", "--seconds", "0"])
    found = json.loads(output.read_text())["results"]
    assert [(row["prompt"], row["signals"]) for row in found] == [(96, [])]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_full_size_program_decodes_the_same_tokens_from_slices_of_the_prompt(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(full_size, "_SLICE_TOKENS", 40 * batch)
    runner = Runner(Case("traced", 96, batch, PAPER), SETTINGS)
    prompt = runner.prompt(96)
    wanted = runner.generate(prompt, 5).sequences
    measured, output = full_size.measure_plain(runner, prompt, 1.0)
    assert output.sequences.tolist() == wanted.tolist()
    assert measured.seconds == pytest.approx(measured.prefill_s + 5 * measured.step_s)


def test_a_full_size_run_goes_on_after_a_failure_and_ends_with_a_broken_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "found.json"
    place = ["--size", "tiny", "--device", "cpu", "--dtype", "float32", "--output", str(output)]
    shape = ["--prompts", "96", "--batches", "1", "--tokens", "4", "--repeats", "1"]

    def fail(self: Runner, prompt: object, output: object, signals: tuple[str, ...]) -> None:
        if signals == ("attraw",):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        raise RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(Runner, "trace", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        full_size.main([*shape, *place])
    assert "skipped: RuntimeError: cuBLAS: CUBLAS_STATUS_ALLOC_FAILED" in capsys.readouterr().out
    content = json.loads(output.read_text())
    names = [row["signals"] for row in content["results"]]
    assert names == [[], *map(list, full_size.SETS[: full_size.SETS.index(("attraw",))])]
    assert content["device"]["copy_bytes_per_s"] > 0
    assert content["device"]["decoder_bytes"] > 0
    assert list(tmp_path.iterdir()) == [output]


def test_the_gpu_script_names_missing_and_old_packages(tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text("raise ImportError")
    old = tmp_path / "transformers-5.17.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Name: transformers\nVersion: 5.17.0\n")
    script = Path(full_size.__file__).with_name("h200.sh")
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(tmp_path),
        "OUT": str(tmp_path / "out"),
    }
    done = subprocess.run([script], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "lacks pydantic, transformers>=5.23 (it has 5.17.0)" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_gpu_script_reports_a_missing_gpu() -> None:
    script = Path(full_size.__file__).with_name("h200.sh")
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([script], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "sees no CUDA device" in done.stderr


def test_comparing_runs_ignores_timings_and_finds_a_value_that_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"sample_id": ["a", "b"], "confidence": [0.5, float("nan")], "timings": [1.0, 2.0]}
    for run in ("one", "same", "other"):
        (tmp_path / run / "spans").mkdir(parents=True)
        pq.write_table(pa.table(rows), tmp_path / run / "spans" / "shard-00000.parquet")
        # The next run has other timings; the last run also has another value.
        rows = {**rows, "timings": [3.0, 4.0]}
        if run == "same":
            rows["confidence"] = [0.5000000001, float("nan")]
    assert compare_runs.main([str(tmp_path / "one"), str(tmp_path / "same")]) == 0
    assert compare_runs.main([str(tmp_path / "one"), str(tmp_path / "other")]) == 1
    assert "spans.confidence, row 0: 0.5 and 0.5000000001" in capsys.readouterr().out
