from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError
from pipeline.config import RayOptions
from pipeline.driver.ray_address import address_to_join, check_answers
from tests.pipeline.made_runs import write_input
from tests.pipeline.ray_head import free_ports


def test_submitted_job_joins_its_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert address_to_join(RayOptions()) is None
    assert address_to_join(RayOptions(address="auto")) == "auto"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert address_to_join(RayOptions()) == "auto"
    assert address_to_join(RayOptions(address="10.0.0.2:6379")) == "10.0.0.2:6379"


@pytest.mark.parametrize("address", ["a..b:6379", f"{'a' * 64}.b:6379"])
def test_what_is_no_name_of_a_host_does_not_answer(address: str) -> None:
    with pytest.raises(ConfigError, match="no Ray cluster answers"):
        check_answers(address)


def _run(folder: Path, model: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a new process: in this one, a run would join a Ray that is connected."""
    write_input(folder / "input", a=["1"])
    config = folder / "run.yaml"
    config.write_text(
        f"input: {{path: {folder}/input}}\noutput: {{path: {folder}/output}}\n"
        f"model: {{path: {model}}}\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(config), *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.ray
def test_wrong_address_is_reported_quickly(tmp_path: Path, tiny_model: str) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    done = _run(tmp_path, tiny_model, "--address", address)
    assert done.returncode == 2
    assert f"ray.address='{address}': no Ray cluster answers" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.ray
def test_local_ray_that_does_not_start_is_reported(
    tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    monkeypatch.setenv("RAY_TMPDIR", str(not_a_folder))
    done = _run(tmp_path, tiny_model)
    assert done.returncode == 1
    assert "the local Ray of this run did not start, at try 1 of 3: " in done.stderr
    assert str(not_a_folder) in done.stderr
    assert "ray start --head" in done.stderr
    assert "Traceback" not in done.stderr
    (verdict,) = (tmp_path / "output").rglob("verdict.json")
    assert "local Ray" in json.loads(verdict.read_text())["reason"]
