"""Submit jobs with `ray job submit` to a real head with a token, and check their output."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnitrace_core.errors import ConfigError
from pipeline.driver.ray_address import check_answers
from tests.conftest import ROOT
from tests.pipeline.made_runs import write_input
from tests.pipeline.ray_head import RayHead, needs_job_server, ray_head

pytestmark = [pytest.mark.slow, pytest.mark.ray, needs_job_server, pytest.mark.timeout(900)]

# Settings that make the shipped model fast; all others are those of a user.
_FAST = ["trace.signals=[attmean]", "trace.store=units", "trace.heatmaps=false"]


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head(n_cpus=4) as running:
        yield running


def _command(folder: Path, run_id: str, *overrides: str) -> list[str]:
    where = [f"input.path={folder}/input", f"output.path={folder}/output", f"run.id={run_id}"]
    return ["-m", "pipeline", "run", "configs/quickstart.yaml", *where, *_FAST, *overrides]


def _submit(
    head: RayHead, job: str, folder: Path, *overrides: str, wait: bool = True
) -> subprocess.CompletedProcess[str]:
    # The job runs the repository, as in the README; Ray leaves out what git ignores.
    options = ["--working-dir", ".", "--submission-id", job, *([] if wait else ["--no-wait"])]
    command = _command(folder, job.partition("-")[0], *overrides)
    return head.ray("job", "submit", *options, "--", "python", *command)


def _folder(folder: Path, run_id: str) -> Path:
    (found,) = (folder / "output").glob(f"run_date=*/run_id={run_id}")
    return found


def _json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def _samples(folder: Path, run_id: str) -> int:
    import pyarrow.dataset

    return int(pyarrow.dataset.dataset(_folder(folder, run_id) / "samples").count_rows())


def test_requests_without_the_token_are_refused(
    head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    stranger = str(tmp_path / "home")
    command = ["job", "submit", "--submission-id", "strange", "--", "echo", "in"]
    refused = head.ray(*command, HOME=stranger, RAY_AUTH_MODE="disabled")
    assert refused.returncode != 0
    assert "oken authentication is enabled" in refused.stdout + refused.stderr
    assert "strange" not in head.ray("job", "list").stdout
    monkeypatch.setenv("HOME", stranger)
    for mode in ("disabled", "token"):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with pytest.raises(ConfigError, match="refuses our token, which is missing or wrong"):
            check_answers(head.address)


def test_job_joins_the_cluster_it_was_submitted_to(head: RayHead, tmp_path: Path) -> None:
    write_input(tmp_path / "input", a=[str(number) for number in range(6)])
    # quickstart.yaml has no ray.address: on a laptop it starts a local Ray.
    done = _submit(head, "good", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert head.status("good") == "SUCCEEDED"
    logs = head.ray("job", "logs", "good").stdout
    assert "6 samples: 6 ok, 0 errors" in logs
    verdict = _json(_folder(tmp_path, "good") / "verdict.json")
    assert (verdict["finished"], verdict["exit_code"], verdict["n_ok"]) == (True, 0, 6)
    assert _samples(tmp_path, "good") == 6
    _assert_counted(head, "good", rows=6)


def _assert_counted(head: RayHead, run_id: str, rows: int) -> None:
    """Check that the run was on this head, and that its metrics are exported."""
    tag = f'run_id="{run_id}"'
    deadline = time.monotonic() + 30
    while True:
        counters = {
            key: value for key, value in head.metrics("ray_omnitrace_").items() if tag in key
        }
        counted = sum(
            value for key, value in counters.items() if key.startswith("ray_omnitrace_rows")
        )
        if counted >= rows or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert counted == rows
    names = {key.partition("{")[0] for key in counters}
    assert names >= {
        "ray_omnitrace_chunks_total",
        "ray_omnitrace_rows_total",
        "ray_omnitrace_generated_tokens_total",
        "ray_omnitrace_trace_seconds_total",
        "ray_omnitrace_curate_seconds_total",
    }
    assert all('status="ok"' in key for key in counters if "_rows_" in key)
    assert all('device="cpu"' in key for key in counters if "_tokens_" in key)


def test_too_many_errors_fail_the_job(head: RayHead, tmp_path: Path) -> None:
    write_input(tmp_path / "input", a=[None, *[str(number) for number in range(9)]])
    done = _submit(head, "bad", tmp_path, "run.max_error_fraction=0.05")
    assert done.returncode == 1
    assert head.status("bad") == "FAILED"
    verdict = _json(_folder(tmp_path, "bad") / "verdict.json")
    assert (verdict["finished"], verdict["exit_code"], verdict["n_error"]) == (True, 4, 1)
    assert verdict["reason"] == "1 of 10 rows are errors, above run.max_error_fraction=0.05"


def test_stopped_job_is_finished_by_the_same_command(head: RayHead, tmp_path: Path) -> None:
    write_input(tmp_path / "input", **{name: [f"{name}{i}" for i in range(30)] for name in "ab"})
    _submit(head, "long-1", tmp_path, "run.chunk_samples=1", wait=False)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("output/run_date=*/run_id=long/_parts/*.arrow")):
        assert time.monotonic() < deadline, head.ray("job", "logs", "long-1").stdout
        time.sleep(0.1)
    assert head.ray("job", "stop", "long-1").returncode == 0
    assert head.status("long-1") == "STOPPED"
    stopped = _folder(tmp_path, "long")
    verdict = _json(stopped / "verdict.json")
    assert (verdict["finished"], verdict["exit_code"]) == (False, 4)
    assert verdict["reason"] == "stopped by SIGTERM; the same command continues the run"
    assert _json(stopped / "_lease.json")["released"] is True
    done = _submit(head, "long-2", tmp_path, "run.chunk_samples=1")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = _json(stopped / "verdict.json")
    assert (verdict["finished"], verdict["exit_code"], verdict["n_ok"]) == (True, 0, 60)
    assert _samples(tmp_path, "long") == 60


def test_address_on_the_command_line(head: RayHead, tmp_path: Path) -> None:
    write_input(tmp_path / "input", a=["1", "2"])
    command = [sys.executable, *_command(tmp_path, "joined"), "--address", head.address]
    done = subprocess.run(
        command,
        env=head.env | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 samples: 2 ok" in done.stdout
    _assert_counted(head, "joined", rows=2)
