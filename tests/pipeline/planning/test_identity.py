from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from omnitrace_core.errors import RunError
from pipeline.planning.identity import record_run_date, run_identity
from tests.pipeline.made_runs import DAY, config_for, write_input

NEXT_DAY = DAY + datetime.timedelta(days=1)


def test_run_stays_one_run_after_midnight(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    first = run_identity(config, lambda: DAY)
    assert run_identity(config, lambda: NEXT_DAY).date == NEXT_DAY
    record_run_date(first)
    second = run_identity(config, lambda: NEXT_DAY)
    assert second == first or second.folder.root == first.folder.root
    assert first.folder.root.endswith(f"/output/run_date=2026-01-31/run_id={first.run_id}")
    record_run_date(second)
    assert run_identity(config, lambda: NEXT_DAY).date == DAY


def test_date_of_the_config_comes_first(tmp_path: Path) -> None:
    record_run_date(run_identity(config_for(tmp_path), lambda: DAY))
    dated = config_for(tmp_path, run={"date": "2025-05-05"})
    assert run_identity(dated, lambda: NEXT_DAY).date == datetime.date(2025, 5, 5)


def test_run_id_depends_on_input_and_settings_only(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    run_id = run_identity(config, lambda: DAY).run_id
    assert run_identity(config, lambda: NEXT_DAY).run_id == run_id
    assert (
        run_identity(config_for(tmp_path, ray={"decode_actors": 5}), lambda: DAY).run_id == run_id
    )
    assert run_identity(config_for(tmp_path, decode={"seed": 1}), lambda: DAY).run_id != run_id
    other = config_for(tmp_path, input={"path": "elsewhere"})
    assert run_identity(other, lambda: DAY).run_id != run_id
    assert run_identity(config_for(tmp_path, run={"id": "mine"}), lambda: DAY).run_id == "mine"
    assert not run_id.isdigit()


def test_speech_models_count_by_their_content_if_they_are_used(tmp_path: Path) -> None:
    folder = tmp_path / "paraformer"
    folder.mkdir()

    def fingerprint(audio: str) -> str:
        config = config_for(tmp_path, units={"audio": audio}, asr={"model": str(folder)})
        return run_identity(config, lambda: DAY).fingerprint

    before = fingerprint("chunks"), fingerprint("bins")
    (folder / "model.pt").write_bytes(b"other weights")
    assert fingerprint("chunks") != before[0]
    assert fingerprint("bins") == before[1]


def test_unreadable_record_of_the_run_date(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    identity = run_identity(config, lambda: DAY)
    identity.output.write(f"_runs/{identity.run_id}.json", b"{}")
    with pytest.raises(RunError, match=r"does not say on which date.*set run\.date"):
        run_identity(config, lambda: DAY)


def test_identify_writes_nothing(tmp_path: Path) -> None:
    write_input(tmp_path / "input", a=["1"])
    run_identity(config_for(tmp_path), lambda: DAY)
    assert not (tmp_path / "output").exists()
