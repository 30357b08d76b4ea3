"""A corpus of hostile and broken media through a whole run: every row has its end, none is lost.

And it costs no more than that: no actor is lost on the way, and memory stays within its limits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from PIL import Image

from pipeline.commands.ingest import ingest
from pipeline.config import RunConfig
from tests.core.media.bad_media import TRACED, BadMedium, bad_media
from tests.core.media.web_server import PEM, PUBLIC, WebServer, response
from tests.core.media_files import image_bytes
from tests.pipeline.watch import Watch

HOSTILE = Path(__file__).parent / "hostile"
CHUNK = 12
MEMORY_MIB = 1024
# What a decoder may take between two looks of its parent, 50 ms apart, on a busy machine: the one
# that swells takes 16 MiB in 5 ms at its fastest.
MEMORY_SLACK_MIB = 192
# An actor holds a chunk as the model sees it, not as decoders need it: what it had at its first
# chunk, and an eighth of a decoder's limit.
ACTOR_GROWTH_MIB = MEMORY_MIB / 8
STAGES = {"DecodeMedia": 2, "ChunkAudio": 1, "TraceDecode": 1, "CurateSpans": 1}
PRIVATE = "10.0.0.5"
Row = dict[str, Any]


@dataclass(frozen=True)
class HostileRun:
    """What became of a run: error code and message by sample, and what was seen meanwhile."""

    cases: list[BadMedium]
    n_samples: int
    found: dict[str, tuple[str, str]]
    watch: Watch
    dialled: set[str]


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    """What answers for media.example.com."""
    server = WebServer()
    server.responses["/red.png"] = response(200, image_bytes(Image.new("RGB", (32, 32), "red")))
    for name, location in WAYS.items():
        server.responses[f"/to-{name}"] = response(302, location=location)
    yield server
    server.close()


# Where redirects lead.
WAYS = {
    "picture": "/red.png",
    "private-name": "https://third.example.com/a.png",
    "private-address": f"https://{PRIVATE}/a.png",
    "metadata-service": "https://169.254.169.254/latest/meta-data",
    "unlisted-host": "https://other.example.com/a.png",
    "plain-http": "http://media.example.com/red.png",
    "file": "file:///etc/passwd",
}
HOSTS = {
    "media.example.com": [PUBLIC],
    "third.example.com": [PRIVATE],
    "mixed.example.com": [PUBLIC, "127.0.0.1"],
    "other.example.com": [PUBLIC],
    "localhost": ["127.0.0.1"],
}


def made_cases(root: Path) -> list[BadMedium]:
    """The list of bad media, what decoders die of, and the web."""
    (root / "inside").mkdir()
    (root / "outside").mkdir()
    made = bad_media(root / "inside", root / "outside")
    for name, code in (
        ("aborts", "media_crashed"),
        ("hangs", "media_timeout"),
        ("swells", "media_memory"),
    ):
        path = root / "inside" / f"{name}.png"
        path.write_bytes(image_bytes(Image.new("RGB", (32, 32))))
        made.append(BadMedium(name, "image", str(path), code))
    for name in WAYS:
        code = TRACED if name == "picture" else "media_denied"
        made.append(BadMedium(f"to-{name}", "image", f"https://media.example.com/to-{name}", code))
    for host, code in (("third", "media_denied"), ("mixed", "media_denied"), ("media", TRACED)):
        uri = f"https://{host}.example.com/red.png"
        made.append(BadMedium(f"web-{host}", "image", uri, code))
    return made


def samples_of(cases: list[BadMedium], good: str) -> list[Row]:
    """A sample per case, and a good one after every third, so that every chunk has some."""
    made = []
    for number, case in enumerate(cases):
        media = {"type": case.kind, case.kind: case.uri, **case.options}
        made.append(sample(case.name, media))
        if number % 3 == 2:
            made.append(sample(f"good-{number}", {"type": "image", "image": good}))
    return made


def sample(sample_id: str, media: Row) -> Row:
    content = [media, {"type": "text", "text": "What is there?"}]
    return {"sample_id": sample_id, "messages": [{"role": "user", "content": content}]}


def config_of(folder: Path, model: str, roots: Path) -> Row:
    return {
        "input": {"path": str(folder / "input")},
        "output": {"path": str(folder / "output")},
        "run": {"chunk_samples": CHUNK, "max_error_fraction": 1.0},
        "model": {"path": model, "device": "cpu"},
        "decode": {"max_new_tokens": 4},
        "ray": {"decode_actors": STAGES["DecodeMedia"]},
        "media": {
            "roots": [str(roots)],
            "web_hosts": [
                "localhost",
                "media.example.com",
                "third.example.com",
                "mixed.example.com",
            ],
            "decode_timeout_s": 40,
            "decode_memory_mib": MEMORY_MIB,
        },
    }


@pytest.fixture(scope="module")
def hostile_run(
    web: WebServer, tiny_model: str, tmp_path_factory: pytest.TempPathFactory
) -> HostileRun:
    """The whole corpus through `python -m pipeline run`, watched."""
    folder = tmp_path_factory.mktemp("hostile")
    cases, inside = made_cases(folder), folder / "inside"
    made = samples_of(cases, str(inside / "image-wrong-extension.gif"))
    corpus, config, world = folder / "samples.jsonl", folder / "config.json", folder / "web.json"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in made))
    ingest(str(corpus), str(folder / "input"))
    config.write_text(json.dumps(config_of(folder, tiny_model, inside)))
    dialled = folder / "dialled"
    told = {"hosts": HOSTS, "port": web.port, "public": PUBLIC, "authorities": str(PEM)}
    world.write_text(json.dumps({**told, "dialled": str(dialled)}))
    paths = {"PYTHONPATH": f"{HOSTILE}:{Path.cwd()}", "HOSTILE_WEB": str(world)}
    command = [sys.executable, "-m", "pipeline", "run", str(config)]
    with (
        subprocess.Popen(
            command,
            env={**os.environ, **paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        Watch(process.pid) as watch,
    ):
        said, complained = process.communicate(timeout=500)
    assert process.returncode == 0, complained[-3000:]
    assert "hidden" not in said + complained, "a query may hold a secret"
    query = f"select sample_id, error_code, message from '{folder}/output/**/samples/*.parquet'"
    found = {row[0]: row[1:] for row in duckdb.execute(query).fetchall()}
    return HostileRun(cases, len(made), found, watch, set(dialled.read_text().split()))


def test_every_row_ends_as_it_should(hostile_run: HostileRun) -> None:
    found = hostile_run.found
    assert len(found) == hostile_run.n_samples, "a row is lost, or there twice"
    expected = {case.name: case.code for case in hostile_run.cases}
    wrong = {
        name: (code, message)
        for name, (code, message) in found.items()
        if code != expected.get(name, TRACED)
    }
    assert not wrong
    assert sum(name.startswith("good-") for name in found) >= hostile_run.n_samples // CHUNK


def test_no_actor_is_lost_or_replaced(hostile_run: HostileRun) -> None:
    """As many processes as the pools are large, from the first chunk to the last."""
    seen = {stage: len(actors) for stage, actors in hostile_run.watch.actors.items()}
    assert seen == STAGES
    n_deadly = sum(
        case.code in ("media_crashed", "media_timeout", "media_memory")
        for case in hostile_run.cases
    )
    assert len(hostile_run.watch.decoders) > n_deadly, "their decoders are another matter"


def test_memory_stays_within_its_limits(hostile_run: HostileRun) -> None:
    most = max(memory.most_mib for memory in hostile_run.watch.decoders.values())
    assert most > MEMORY_MIB / 2, "the one that swells was not seen"
    assert most < MEMORY_MIB + MEMORY_SLACK_MIB
    for memory in hostile_run.watch.actors["DecodeMedia"].values():
        assert memory.most_mib - memory.first_mib < ACTOR_GROWTH_MIB


def test_nothing_private_is_called(hostile_run: HostileRun) -> None:
    """Neither by redirects nor by names that lead inside; the public server was."""
    assert hostile_run.dialled == {f"{PUBLIC}:443"}
    no_public = f"resolves to {PRIVATE}, which is not a public address"
    for name in ("to-private-name", "web-third"):
        assert no_public in hostile_run.found[name][1]
    assert f"redirected to https://{PRIVATE}/a.png" in hostile_run.found["to-private-address"][1]


def test_the_pools_are_what_the_config_says() -> None:
    given = RunConfig.model_validate(config_of(Path("a"), "model", Path("b")))
    sizes = (given.ray.decode_actors, given.ray.audio_actors, given.model.replicas)
    assert (*sizes, given.ray.curate_actors) == tuple(STAGES.values())
