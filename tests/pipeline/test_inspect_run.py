from __future__ import annotations

from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError
from pipeline.inspect_run import inspect_sample
from pipeline.run import run
from tests.pipeline.made_runs import Worker, config_for, job_for, write_input


@pytest.fixture
def output(tmp_path: Path) -> str:
    write_input(tmp_path / "input", a=["1", "2"], b=["1"])
    job = job_for(config_for(tmp_path))
    run(job, Worker(job.folder, say="In the hall."))
    return str(tmp_path / "output")


def test_sample_is_shown_in_words(output: str) -> None:
    said = inspect_sample(output, "2")
    assert "2  (a.parquet:1): ok" in said
    assert "response:\n  In the hall." in said
    assert "span 0, supported" in said
    assert "span 1, supported" in said
    assert "1. [0] sentence" in said


def test_error_row_says_why(output: str) -> None:
    said = inspect_sample(output, "1")
    assert "1  (a.parquet:0): ok" in said
    assert "1  (b.parquet:0): error" in said
    assert "error in read, duplicate_sample_id: b.parquet:0: sample_id '1' was already seen" in said


def test_unknown_sample_and_unknown_run(output: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no sample '9' in the 2 shards"):
        inspect_sample(output, "9")
    with pytest.raises(ConfigError, match="holds no published samples"):
        inspect_sample(str(tmp_path / "input"), "1")
