"""A run over broken media: every row is published once, as ok or with the expected error.

No actor is lost meanwhile, and memory stays within its limits.
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

FAILING_DECODERS = Path(__file__).parent / "failing_decoders"
CHUNK = 12
MEMORY_MIB = 1024
# What a decoder may allocate between two measurements by its parent, 50 ms apart, on a busy
# machine: opening `swells.*` allocates up to 16 MiB per 5 ms.
MEMORY_SLACK_MIB = 192
# An actor holds decoded media only in the sizes that the model needs. So after its first chunk it
# may grow by an eighth of a decoder's limit.
ACTOR_GROWTH_MIB = MEMORY_MIB / 8
STAGES = {"DecodeMedia": 2, "ChunkSpeech": 1, "TraceDecode": 1, "CurateSpans": 1}
PRIVATE = "10.0.0.5"
Row = dict[str, Any]


@dataclass(frozen=True)
class BrokenRun:
    """Results of a run: error code and message by sample; processes and connections meanwhile.

    found: error code and message by sample id.
    connected: addresses that decoders connected to.
    """

    cases: list[BadMedium]
    n_samples: int
    found: dict[str, tuple[str, str]]
    watch: Watch
    connected: set[str]


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    """The server that media.example.com resolves to."""
    server = WebServer()
    server.responses["/red.png"] = response(200, image_bytes(Image.new("RGB", (32, 32), "red")))
    for name, location in REDIRECTS.items():
        server.responses[f"/to-{name}"] = response(302, location=location)
    yield server
    server.close()


REDIRECTS = {
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


def make_cases(root: Path) -> list[BadMedium]:
    """The list of bad media, files that make decoders fail, and media on the web."""
    (root / "inside").mkdir()
    (root / "outside").mkdir()
    cases = bad_media(root / "inside", root / "outside")
    for name, code in (
        ("aborts", "media_crashed"),
        ("hangs", "media_timeout"),
        ("swells", "media_memory"),
    ):
        path = root / "inside" / f"{name}.png"
        path.write_bytes(image_bytes(Image.new("RGB", (32, 32))))
        cases.append(BadMedium(name, "image", str(path), code))
    for name in REDIRECTS:
        code = TRACED if name == "picture" else "media_denied"
        cases.append(BadMedium(f"to-{name}", "image", f"https://media.example.com/to-{name}", code))
    for host, code in (("third", "media_denied"), ("mixed", "media_denied"), ("media", TRACED)):
        uri = f"https://{host}.example.com/red.png"
        cases.append(BadMedium(f"web-{host}", "image", uri, code))
    return cases


def samples_of(cases: list[BadMedium], good: str) -> list[Row]:
    """A sample per case, and a good one after every third, so that every chunk has some."""
    samples = []
    for number, case in enumerate(cases):
        media = {"type": case.kind, case.kind: case.uri, **case.options}
        samples.append(sample(case.name, media))
        if number % 3 == 2:
            samples.append(sample(f"good-{number}", {"type": "image", "image": good}))
    return samples


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
def broken_run(
    web: WebServer, tiny_model: str, tmp_path_factory: pytest.TempPathFactory
) -> BrokenRun:
    """Run `python -m pipeline run` on the whole corpus, and watch its processes."""
    folder = tmp_path_factory.mktemp("broken")
    cases, inside = make_cases(folder), folder / "inside"
    samples = samples_of(cases, str(inside / "image-wrong-extension.gif"))
    corpus, config, web_file = folder / "samples.jsonl", folder / "config.json", folder / "web.json"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in samples))
    ingest(str(corpus), str(folder / "input"))
    config.write_text(json.dumps(config_of(folder, tiny_model, inside)))
    connected = folder / "connected"
    web_settings = {
        "hosts": HOSTS,
        "port": web.port,
        "public": PUBLIC,
        "authorities": str(PEM),
        "connected": str(connected),
    }
    web_file.write_text(json.dumps(web_settings))
    paths = {"PYTHONPATH": f"{FAILING_DECODERS}:{Path.cwd()}", "SIMULATED_WEB": str(web_file)}
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
        output, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors[-3000:]
    assert "hidden" not in output + errors, "a query may hold a secret"
    query = f"select sample_id, error_code, message from '{folder}/output/**/samples/*.parquet'"
    found = {row[0]: row[1:] for row in duckdb.execute(query).fetchall()}
    return BrokenRun(cases, len(samples), found, watch, set(connected.read_text().split()))


def test_every_row_is_ok_or_has_the_expected_error(broken_run: BrokenRun) -> None:
    found = broken_run.found
    assert len(found) == broken_run.n_samples, "a row is missing or repeated"
    expected = {case.name: case.code for case in broken_run.cases}
    wrong = {
        name: (code, message)
        for name, (code, message) in found.items()
        if code != expected.get(name, TRACED)
    }
    assert not wrong
    assert sum(name.startswith("good-") for name in found) >= broken_run.n_samples // CHUNK


def test_no_actor_is_lost_or_replaced(broken_run: BrokenRun) -> None:
    """As many processes as the pools are large, from the first chunk to the last."""
    seen = {stage: len(actors) for stage, actors in broken_run.watch.actors.items()}
    assert seen == STAGES
    n_killed = sum(
        case.code in ("media_crashed", "media_timeout", "media_memory") for case in broken_run.cases
    )
    assert len(broken_run.watch.decoders) > n_killed, (
        "each killed decoder should have been replaced"
    )


def test_memory_stays_within_its_limits(broken_run: BrokenRun) -> None:
    peak_mib = max(memory.peak_mib for memory in broken_run.watch.decoders.values())
    assert peak_mib > MEMORY_MIB / 2, "the decoder of `swells.*` was not measured"
    assert peak_mib < MEMORY_MIB + MEMORY_SLACK_MIB
    for memory in broken_run.watch.actors["DecodeMedia"].values():
        assert memory.peak_mib - memory.first_mib < ACTOR_GROWTH_MIB


def test_private_addresses_are_never_connected_to(broken_run: BrokenRun) -> None:
    """Private addresses are never connected to, by redirect or by DNS."""
    assert broken_run.connected == {f"{PUBLIC}:443"}
    no_public = f"resolves to {PRIVATE}, which is not a public address"
    for name in ("to-private-name", "web-third"):
        assert no_public in broken_run.found[name][1]
    assert f"redirected to https://{PRIVATE}/a.png" in broken_run.found["to-private-address"][1]


def test_pools_have_the_sizes_of_the_config() -> None:
    config = RunConfig.model_validate(config_of(Path("a"), "model", Path("b")))
    sizes = (config.ray.decode_actors, config.ray.audio_actors, config.model.replicas)
    assert (*sizes, config.ray.curate_actors) == tuple(STAGES.values())
