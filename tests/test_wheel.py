"""The wheel, installed outside the checkout, works like the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import omnitrace_core
from tests.conftest import ROOT

SOURCES = ("omnitrace_core", "stages", "pipeline", "pyproject.toml", "README.md", "LICENSE")
PACKAGES = ("omnitrace_core", "stages", "pipeline")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = ROOT / name, folder / "source" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "wheel", "--no-deps", "-w", str(folder), str(folder / "source")], folder)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith(f"omnitrace_ray-{omnitrace_core.__version__}-")
    _run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], folder)
    return folder / "site"


@pytest.mark.slow
@pytest.mark.ray
def test_the_demos_commands_run_beside_folders_with_our_names(site: Path, tmp_path: Path) -> None:
    # Ray puts the driver's working directory first on the import path of its workers.
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('not our {name}')\n")
    corpus = tmp_path / "corpus"
    _run([sys.executable, "-m", "training.demo.corpus", str(corpus), "--planted", "1"], ROOT)
    omnitrace = str(site / "bin" / "omnitrace")
    environment = {**os.environ, "PYTHONPATH": str(site)}

    version = _run([omnitrace, "--version"], tmp_path, environment)
    assert version.strip() == omnitrace_core.__version__
    _run([omnitrace, "ingest", str(corpus / "samples.jsonl"), "input"], tmp_path, environment)
    config = [str(ROOT / "configs" / "quickstart.yaml"), "input.path=input", "output.path=output"]
    _run([omnitrace, "run", *config], tmp_path, environment)

    (samples,) = (tmp_path / "output").glob("*/*/samples/*.parquet")
    rows = pq.read_table(samples).to_pylist()
    assert len(rows) > 20
    assert [row["message"] for row in rows if row["status"] != "ok"] == []
    shown = _run([omnitrace, "inspect", "output", "image-choice"], tmp_path, environment)
    assert "image-choice" in shown


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
