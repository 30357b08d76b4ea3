"""`run.retry` on the command line, with Ray and a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipeline.cli import main
from tests.pipeline.drivers import query
from tests.stages.chunks import text_row, user, write_shard


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_missing_file_that_appears_is_traced_by_a_retry(
    tmp_path: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "late.png"
    parts = user({"type": "image", "uri": str(picture)}, {"type": "text", "text": "What is it?"})
    late = {"sample_id": "late", "messages": [parts], "response": "A red lamp."}
    kept = text_row("kept", response="It is red.")
    write_shard(tmp_path / "input" / "a.parquet", [kept, late, text_row("kept")])
    config = tmp_path / "run.yaml"
    config.write_text(
        f"input: {{path: {tmp_path}/input}}\noutput: {{path: {tmp_path}/output}}\n"
        f"model: {{path: {tiny_model}}}\nrun: {{max_error_fraction: 1}}\n"
    )
    samples = f"from '{tmp_path}/output/**/samples/*.parquet' order by row_key"
    assert main(["run", str(config)]) == 0
    before = query(f"select * {samples}")
    capsys.readouterr()
    assert main(["run", str(config), "--dry-run", "run.retry=errors"]) == 0
    printed = capsys.readouterr().out
    assert "retries 1 published error row (retry 1 of this run): media_missing 1" in printed
    assert "not 1 row whose input decides on the error: duplicate_sample_id 1" in printed
    Image.new("RGB", (64, 64), "red").save(picture)
    assert main(["run", str(config), "run.retry=errors"]) == 0
    assert "retry 1 (errors): 1 error row done again, 1 of them ok now" in capsys.readouterr().out
    after = query(f"select * {samples}")
    assert (after[0], after[2]) == (before[0], before[2])
    assert query(f"select row_key, status, error_code, attempts {samples}") == [
        ("a.parquet:0", "ok", "", 1),
        ("a.parquet:1", "ok", "", 2),
        ("a.parquet:2", "error", "duplicate_sample_id", 1),
    ]
    spans = f"from '{tmp_path}/output/**/spans/*.parquet'"
    assert query(f"select distinct row_key {spans} order by all") == [
        ("a.parquet:0",),
        ("a.parquet:1",),
    ]
    assert main(["run", str(config), "run.retry=errors"]) == 0
    assert "nothing to do; run.retry chooses none of its rows" in capsys.readouterr().out
