from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError, RunError
from omnitrace_core.options import ModelOptions
from pipeline.planning.identity import identify, record_run_date
from pipeline.planning.model_files import model_identity
from tests.pipeline.made_runs import DAY, config_for, write_input

NEXT_DAY = DAY + datetime.timedelta(days=1)


def test_run_stays_one_run_after_midnight(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    first = identify(config, lambda: DAY)
    assert identify(config, lambda: NEXT_DAY).date == NEXT_DAY
    record_run_date(first)
    second = identify(config, lambda: NEXT_DAY)
    assert second == first or second.folder.root == first.folder.root
    assert first.folder.root.endswith(f"/output/run_date=2026-01-31/run_id={first.run_id}")
    record_run_date(second)
    assert identify(config, lambda: NEXT_DAY).date == DAY


def test_given_date_wins(tmp_path: Path) -> None:
    record_run_date(identify(config_for(tmp_path), lambda: DAY))
    given = config_for(tmp_path, run={"date": "2025-05-05"})
    assert identify(given, lambda: NEXT_DAY).date == datetime.date(2025, 5, 5)


def test_run_id_depends_on_input_and_settings_only(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    run_id = identify(config, lambda: DAY).run_id
    assert identify(config, lambda: NEXT_DAY).run_id == run_id
    assert identify(config_for(tmp_path, ray={"decode_actors": 5}), lambda: DAY).run_id == run_id
    assert identify(config_for(tmp_path, decode={"seed": 1}), lambda: DAY).run_id != run_id
    other = config_for(tmp_path, input={"path": "elsewhere"})
    assert identify(other, lambda: DAY).run_id != run_id
    assert identify(config_for(tmp_path, run={"id": "mine"}), lambda: DAY).run_id == "mine"
    assert not run_id.isdigit()


def test_speech_models_count_by_their_content_where_they_are_used(tmp_path: Path) -> None:
    folder = tmp_path / "paraformer"
    folder.mkdir()

    def of(audio: str) -> str:
        config = config_for(tmp_path, units={"audio": audio}, asr={"model": str(folder)})
        return identify(config, lambda: DAY).fingerprint

    before = of("chunks"), of("bins")
    (folder / "model.pt").write_bytes(b"other weights")
    assert of("chunks") != before[0]
    assert of("bins") == before[1]


def test_unreadable_record_of_the_run_date(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    identity = identify(config, lambda: DAY)
    identity.output.write(f"_runs/{identity.run_id}.json", b"{}")
    with pytest.raises(RunError, match=r"does not say on which date.*set run\.date"):
        identify(config, lambda: DAY)


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


def test_large_weights_are_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.planning.model_files._WHOLE_BYTES", 1)
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


def test_identify_writes_nothing(tmp_path: Path) -> None:
    write_input(tmp_path / "input", a=["1"])
    identify(config_for(tmp_path), lambda: DAY)
    assert not (tmp_path / "output").exists()
