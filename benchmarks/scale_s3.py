"""Count requests to S3 by operation: per chunk, per shard, and of a rerun with nothing to do.

They are counted where s3fs sends them to a real server (SeaweedFS on loopback). Every stage of the
graph runs except the model; Ray itself sends no requests.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import yaml
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from benchmarks.scale_fake import FakeTraceDecode, config_tree, do_chunk, write_input
from pipeline.cli import main as command
from pipeline.config import make_config
from pipeline.driver import steps
from pipeline.driver.plan_run import plan_run
from pipeline.driver.run import run
from pipeline.graph import plan_row
from pipeline.planning.identified_run import identify_run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.attempt_log import StoredAttemptLog
from pipeline.run_folder.commit import CommittedChunk, commit_chunk
from pipeline.run_folder.lease_file import Claim, current_claim
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.publish import publish_shard
from stages.chunk_speech import ChunkSpeech
from stages.curate_spans import CurateOptions, CurateSpans
from stages.decode_media import DecodeMedia
from stages.read_samples import read_samples
from stages.records.assemble import Provenance
from stages.trace_decode import TraceDecodeOptions
from tests.pipeline.storage.s3_server import environment, serve_s3

_BUCKET = "s3://scale"
_SHARDS, _CHUNKS, _ROWS = 10, 10, 8  # of the run whose requests are counted by part
Counts = dict[str, Counter[str]]


def measure_s3(folder: Path, shards: int) -> tuple[dict[str, Any], str]:
    """Count requests; return the figures and their table. shards: of the run that is rerun."""
    with serve_s3(folder) as address, _environ(environment(address)), _counting() as counting:
        counting.make_bucket()
        run_counts = _whole_run(counting)
        rerun = _rerun(folder, shards, counting)
    figures = {
        "shards": _SHARDS,
        "chunks": _SHARDS * _CHUNKS,
        "by_part": {name: dict(count) for name, count in run_counts.items()},
        "rerun": {"shards": shards, **rerun},
    }
    return figures, _table(figures)


def _whole_run(counting: _Counting) -> Counts:
    """All requests of a small run, by the part of the run that sends them."""
    here = f"{_BUCKET}/whole"
    write_input(f"{here}/input", _SHARDS * _CHUNKS * _ROWS, _SHARDS)
    counting.counts.clear()
    with counting.labelled("plan"):
        planned = plan_run(identify_run(make_config(config_tree(here, _ROWS), [], "benchmark")))

    def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        step = _chain(planned, current_claim(planned.folder))
        for chunk in chunks:
            with counting.labelled("chunks"):
                committed = step(chunk)
            yield committed

    def published(*args: Any, **more: Any) -> Any:
        with counting.labelled("publish"):
            return publish_shard(*args, **more)

    with counting.labelled("driver"), patch.object(steps, "publish_shard", published):
        run(planned, execute)
    return dict(counting.counts)


class _LocalAttemptLog(StoredAttemptLog):
    """Attempts of a process that is not a Ray actor."""

    @property
    def worker(self) -> str:
        return "benchmark"


def _chain(planned: PlannedRun, claim: Claim) -> Callable[[Chunk], CommittedChunk]:
    """The stages of the graph one after another, with the fake tracer."""
    config = planned.config
    reading = config.reading_options(planned.rules)
    provenance = Provenance(planned.identity.fingerprint, "benchmark")
    attempts = _LocalAttemptLog(planned.folder, claim)
    stages: list[Callable[[pa.Table], pa.Table]] = [
        read_samples,
        DecodeMedia(reading),
        ChunkSpeech(reading),
        FakeTraceDecode(TraceDecodeOptions(config.model, config.decode, config.trace), attempts),
        CurateSpans(
            CurateOptions(config.spans, config.curation, config.trace, config.units), provenance
        ),
    ]

    def step(chunk: Chunk) -> CommittedChunk:
        table = plan_row(chunk)
        for stage in stages:
            table = stage(table)
        return CommittedChunk(**commit_chunk(table, planned.folder, claim).to_pylist()[0])

    return step


def _rerun(folder: Path, shards: int, counting: _Counting) -> dict[str, Any]:
    """Finish a run of many small shards, and count the requests of the same command after it."""
    here = f"{_BUCKET}/many"
    write_input(f"{here}/input", shards, shards)
    tree = config_tree(here, 1)
    planned = plan_run(identify_run(make_config(tree, [], "benchmark")))

    def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        for chunk in chunks:
            yield CommittedChunk(**do_chunk(chunk, planned.folder.root))

    run(planned, execute)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    counting.counts.clear()
    begun = time.perf_counter()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), counting.labelled("rerun"):
        command(["run", str(config)])
    if "nothing to do" not in printed.getvalue():
        raise RuntimeError(f"the run was not finished:\n{printed.getvalue()}")
    return {"wall_s": time.perf_counter() - begun, "requests": dict(counting.counts["rerun"])}


def _table(figures: dict[str, Any]) -> str:
    chunks, shards = figures["chunks"], figures["shards"]
    lines = [f"{'part':10}{'operation':22}{'requests':>10}{'per chunk':>11}{'per shard':>11}"]
    for part, counts in figures["by_part"].items():
        lines += [
            f"{part:10}{name:22}{n:10}{n / chunks:11.2f}{n / shards:11.2f}"
            for name, n in sorted(counts.items())
        ]
    rerun = figures["rerun"]
    requests = ", ".join(f"{n} {name}" for name, n in sorted(rerun["requests"].items()))
    lines.append(f"nothing to do, {rerun['shards']} shards: {requests} in {rerun['wall_s']:.1f} s")
    return "\n".join(lines)


class _Counting:
    """Requests by label and operation."""

    def __init__(self) -> None:
        self.counts: Counts = {}
        self._label = "other"
        self._guard = threading.Lock()

    def add(self, operation: str) -> None:
        with self._guard:
            self.counts.setdefault(self._label, Counter())[operation] += 1

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        before, self._label = self._label, label
        try:
            yield
        finally:
            self._label = before

    def make_bucket(self) -> None:
        S3FileSystem(skip_instance_cache=True).mkdir(_BUCKET)


@contextmanager
def _counting() -> Iterator[_Counting]:
    """Count each request of s3fs, from our class with retries and from the plain one."""
    counting = _Counting()
    original = S3FileSystem._call_s3

    async def counted(self: S3FileSystem, method: str, *more: Any, **kwargs: Any) -> Any:
        counting.add(method)
        return await original(self, method, *more, **kwargs)

    with (
        patch.object(S3FileSystem, "_call_s3", counted),
        patch.object(S3FileSystem, "call_s3", sync_wrapper(counted)),
    ):
        yield counting


@contextmanager
def _environ(variables: dict[str, str]) -> Iterator[None]:
    with patch.dict(os.environ, variables):
        yield
