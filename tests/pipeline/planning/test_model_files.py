from __future__ import annotations

from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError
from omnitrace_core.options import ModelOptions
from pipeline.planning.model_files import model_identity


def test_model_identity_follows_the_content(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"0" * 1000)
    options = ModelOptions(path=str(folder))
    first = model_identity(options)
    assert model_identity(options) == first
    (folder / "model.safetensors").write_bytes(b"0" * 999 + b"1")
    weights = model_identity(options)
    (folder / "config.json").write_text("{ }")
    assert len({first, weights, model_identity(options)}) == 3


def test_samples_of_large_weights_are_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.planning.model_files.WHOLE_BYTES", 1)
    weights = tmp_path / "model.safetensors"
    content = bytearray(1_000_000)
    weights.write_bytes(content)
    first = model_identity(ModelOptions(path=str(tmp_path)))
    content[-1] = 1
    weights.write_bytes(content)
    assert model_identity(ModelOptions(path=str(tmp_path))) != first
    weights.write_bytes(b"")
    model_identity(ModelOptions(path=str(tmp_path)))


@pytest.mark.parametrize("revision", [None, "main", "abc123"])
def test_hub_model_must_be_pinned(revision: str | None) -> None:
    with pytest.raises(ConfigError, match=r"needs model\.revision, the 40-digit commit"):
        model_identity(ModelOptions(path="Qwen/Qwen2.5-Omni-7B", revision=revision))


def test_pinned_hub_model() -> None:
    options = ModelOptions(path="Qwen/Qwen2.5-Omni-7B", revision="a" * 40)
    assert model_identity(options) == f"Qwen/Qwen2.5-Omni-7B@{'a' * 40}"
