"""A corpus of hostile and broken media through a whole run: every row has its end, none is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.ingest import ingest
from tests.core.bad_media import TRACED, BadMedium, bad_media
from tests.core.media_files import image_bytes

HOSTILE = Path(__file__).parent / "hostile"
CHUNK = 12
Row = dict[str, Any]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[BadMedium]:
    """The list of bad media, and two that decoders die of."""
    from PIL import Image

    root = tmp_path_factory.mktemp("media")
    (root / "inside").mkdir()
    (root / "outside").mkdir()
    made = bad_media(root / "inside", root / "outside")
    for name, code in (("aborts", "media_crashed"), ("hangs", "media_timeout")):
        path = root / "inside" / f"{name}.png"
        path.write_bytes(image_bytes(Image.new("RGB", (32, 32))))
        made.append(BadMedium(name, "image", str(path), code))
    return made


def samples_of(cases: list[BadMedium], good: str) -> list[Row]:
    """A sample per case, and a good one after every third, so that every chunk has some."""
    made = []
    for number, case in enumerate(cases):
        media = {"type": case.kind, case.kind: case.uri}
        made.append(sample(case.name, media))
        if number % 3 == 2:
            made.append(sample(f"good-{number}", {"type": "image", "image": good}))
    return made


def sample(sample_id: str, media: Row) -> Row:
    content = [media, {"type": "text", "text": "What is there?"}]
    return {"sample_id": sample_id, "messages": [{"role": "user", "content": content}]}


def test_every_row_ends_as_it_should(
    cases: list[BadMedium], tiny_model: str, tmp_path: Path
) -> None:
    inside = Path(cases[-1].uri).parent
    good = inside / "image-wrong-extension.gif"
    made = samples_of(cases, str(good))
    corpus = tmp_path / "samples.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in made))
    ingest(str(corpus), str(tmp_path / "input"))
    config = tmp_path / "config.json"
    config.write_text(json.dumps(config_of(tmp_path, tiny_model, inside)))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(config)],
        env={**os.environ, "PYTHONPATH": f"{HOSTILE}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "hidden" not in done.stdout + done.stderr, "a query may hold a secret"
    found = {
        row[0]: row[1:]
        for row in duckdb.sql(
            f"select sample_id, error_code, message from '{tmp_path}/output/**/samples/*.parquet'"
        ).fetchall()
    }
    assert len(found) == len(made), "a row is lost, or there twice"
    expected = {case.name: case.code for case in cases}
    wrong = {
        name: (code, message)
        for name, (code, message) in found.items()
        if code != expected.get(name, TRACED)
    }
    assert not wrong
    assert sum(name.startswith("good-") for name in found) >= len(made) // CHUNK


def config_of(folder: Path, model: str, roots: Path) -> Row:
    return {
        "input": {"path": str(folder / "input")},
        "output": {"path": str(folder / "output")},
        "run": {"chunk_samples": CHUNK, "max_error_fraction": 1.0},
        "model": {"path": model, "device": "cpu"},
        "decode": {"max_new_tokens": 4},
        "media": {
            "roots": [str(roots)],
            "web_hosts": ["localhost"],
            "decode_timeout_s": 15,
        },
    }
