"""`omnitrace inspect`: one sample of a run, as text and on a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError
from pipeline.commands.inspect import inspect_sample
from pipeline.commands.terminal import plain
from pipeline.driver.run import run
from tests.pipeline.made_runs import Worker, config_for, planned_run, rows, write_input
from tests.pipeline.traced_runs import traced_run


def inspect(run_folder: str, sample_id: str) -> str:
    return plain(inspect_sample(run_folder, sample_id))


@pytest.fixture
def output(tmp_path: Path) -> str:
    write_input(tmp_path / "input", a=["1", "2"], b=["1"])
    planned = planned_run(config_for(tmp_path))
    run(planned, Worker(planned.folder, response="In the hall."))
    return str(tmp_path / "output")


def test_sample_is_shown_in_words(output: str) -> None:
    text = inspect(output, "2")
    assert "2  (a.parquet:1): ok" in text
    assert "response:\n  In the hall." in text
    assert "span 0, supported" in text
    assert "span 1, supported" in text
    assert re.search(r"^ +1 +0  sentence", text, flags=re.M)


def test_error_row_says_why(output: str) -> None:
    text = inspect(output, "1")
    assert "1  (a.parquet:0): ok" in text
    assert "1  (b.parquet:0): error" in text
    assert "error in read, duplicate_sample_id: b.parquet:0: sample_id '1' was already seen" in text


def test_heat_maps_say_where_they_are_strongest(tmp_path: Path) -> None:
    planned = traced_run(tmp_path, trace={"heatmaps": True})
    text = inspect(planned.folder.root, "picture")
    assert text.count("heat map of part 0, image: strongest at [") == text.count("span ") > 0
    maps = [row for row in rows(planned.folder, "heatmaps") if row["sample_id"] == "picture"]
    row, column = divmod(max(range(16), key=maps[0]["patches"].__getitem__), 4)
    box = [column * 30, row * 20, column * 30 + 30, row * 20 + 20]
    assert f"heat map of part 0, image: strongest at {box}, {255 * maps[0]['scale']:.4f}" in text
    assert "heat map" not in inspect(planned.folder.root, "text")


def test_unknown_sample_and_unknown_run(output: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no sample '9' in the 2 shards"):
        inspect_sample(output, "9")
    with pytest.raises(ConfigError, match="holds no published samples"):
        inspect_sample(str(tmp_path / "input"), "1")
