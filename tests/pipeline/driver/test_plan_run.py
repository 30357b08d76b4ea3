"""What is checked before any work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError
from pipeline.config import RunConfig
from pipeline.driver.plan_run import plan_run
from pipeline.planning.identified_run import identify_run
from tests.pipeline.made_runs import config_for, write_input


def config_of(folder: Path, model: Path) -> RunConfig:
    tree = {
        "input": {"path": str(folder / "input")},
        "output": {"path": str(folder / "output")},
        "model": {"path": str(model), "device": "cpu"},
    }
    return RunConfig.model_validate(tree)


@pytest.fixture
def model(tmp_path: Path, tiny_model: str) -> Path:
    write_input(tmp_path / "input", a=["1"])
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_complete_model_is_accepted(tmp_path: Path, model: Path) -> None:
    assert plan_run(identify_run(config_of(tmp_path, model))).plan.n_rows == 1


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.safetensors", "lacks safetensors weights"),
        ("tokenizer.json", "lacks a tokenizer"),
        ("processor_config.json", "lacks its processor's settings"),
        ("config.json", r"no config\.json"),
    ],
)
def test_missing_file_is_named(tmp_path: Path, model: Path, file: str, message: str) -> None:
    (model / file).unlink()
    with pytest.raises(ConfigError, match=message):
        plan_run(identify_run(config_of(tmp_path, model)))
    assert not (tmp_path / "output").exists()


def test_missing_weight_shard_is_named(tmp_path: Path, model: Path) -> None:
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    (model / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ConfigError, match="model-00001-of-00002"):
        plan_run(identify_run(config_of(tmp_path, model)))


def test_broken_config_is_named(tmp_path: Path, model: Path) -> None:
    (model / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        plan_run(identify_run(config_of(tmp_path, model)))


def test_output_inside_the_input_through_a_link(tmp_path: Path) -> None:
    config = config_for(tmp_path, output={"path": str(tmp_path / "link" / "out")})
    write_input(tmp_path / "input", a=["1"])
    (tmp_path / "link").symlink_to(tmp_path / "input")
    with pytest.raises(ConfigError, match=r"output\.path=.* lies inside input\.path="):
        plan_run(identify_run(config))


def test_output_whose_files_would_have_too_long_names(tmp_path: Path) -> None:
    deep = "/".join(["x" * 195] * 20)
    config = config_for(tmp_path, output={"path": f"{tmp_path}/{deep}"})
    write_input(tmp_path / "input", a=["1"])
    with pytest.raises(ConfigError, match=r"output\.path=.* is too long for the run's files"):
        plan_run(identify_run(config))
