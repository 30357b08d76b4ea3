"""Read what `benchmarks.capacity` computes with: stored results, and the config for GPUs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.throughput import cpu_ratio, measurement_from
from pipeline.config import load_config
from pipeline.driver.ray_session import reserved_cpus, reserved_gpus

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
CONFIG = ROOT / "configs" / "qwen2_5_omni.yaml"
Points = tuple[tuple[float, float], ...]

# Share of the samples by kind, as benchmarks.media names it. The last quarter is text, which needs
# no decoding.
MIX = {
    "image 1600x1200 JPEG": 0.25,
    "audio 30 s, 44.1 kHz": 0.25,
    "the same, with sound": 0.25,
}

# Requests that the run of scale-s3 did not send: DecodeMedia, where a chunk has media, and
# ChunkSpeech, where units.audio is chunks, count attempts at a chunk, like the model's stage. Each
# reads, writes and deletes the count, and reads the lease before each of these.
ATTEMPT_PUTS, ATTEMPT_GETS = 1, 4
_COUNTING_STAGES = 2
# The shards of that run are below 64 KB, so that one GET reads a whole file; the end of larger ones
# is read by another GET.
_END_GETS = 1
_CHUNK_FILE_GETS = 1  # to read a chunk file when it is published


@dataclass(frozen=True, slots=True)
class Graph:
    """What the graph reserves.

    chunk: samples per chunk. window: chunks per window. cpus, gpus: reserved in all. beside: CPUs
    reserved by all stages except the model's.
    """

    chunk: int
    window: int
    cpus: float
    gpus: float
    beside: float


def shipped(path: Path = CONFIG) -> Graph:
    """The graph of the config for GPUs."""
    config = load_config(str(path))
    cpus = reserved_cpus(config)
    beside = cpus - config.model.replicas * config.ray.trace_cpus
    run = config.run
    return Graph(run.chunk_samples, run.window_chunks, cpus, reserved_gpus(config), beside)


@dataclass(frozen=True, slots=True)
class Measured:
    """Values from benchmarks/results, measured on this project's machine (CPUs).

    tracing: time of traced over plain generation. graph: the graph's throughput over that of its
    stages without Ray, at most 1. decode_s: processor time of decoding per sample of the mix.
    rest_s: processor time of all other CPU stages per sample. puts, gets: requests per chunk;
    shard_puts, shard_gets: requests per shard. publish: points of (megabytes of masses in a chunk
    file, seconds of the driver per file). publish_turns: sequential requests of publishing a shard,
    without those for its chunk files. plan_row_s, plan_shard_s: time of the driver per row and per
    shard. ids_mib: points of (rows, memory for finding repeated ids among them). driver_mib: memory
    of the driver without ids and shards; shard_mib: per shard. ray_mib: memory that Ray and the
    graph add; window_mib: per chunk of a window.
    """

    tracing: float
    graph: float
    decode_s: float
    rest_s: float
    puts: float
    gets: float
    shard_puts: float
    shard_gets: float
    publish: Points
    publish_turns: float
    plan_row_s: float
    plan_shard_s: float
    ids_mib: Points
    driver_mib: float
    shard_mib: float
    ray_mib: float
    window_mib: float


def measured(folder: Path = RESULTS) -> Measured:
    """Read the stored results."""
    tracing = _read(folder, "tracing-cpu")["targets"]
    throughput_file = _read(folder, "throughput-cpu")
    throughput = throughput_file["results"]
    media = {row["name"]: row["child_per_s"] for row in _read(folder, "media-cpu")["results"]}
    paper = _read(folder, "scale-paper")["results"]
    ids = _read(folder, "scale-ids")["results"]
    publish = _read(folder, "scale-publish")["results"]
    plan_row_s = (ids[-1]["hash_s"] + ids[-1]["search_s"]) / ids[-1]["rows"]
    return Measured(
        tracing=max(t["measured"] for t in tracing if t["name"] == "traced attmean / plain: time"),
        graph=min(1.0, _graph_ratio(throughput, throughput_file["cpus"])),
        decode_s=sum(share / media[name] for name, share in MIX.items()),
        rest_s=_rest_ms(throughput) / 1e3,
        **_requests(_read(folder, "scale-s3")["results"]),
        publish=tuple((row["mass_mb"], row["wall_s"]) for row in publish),
        plan_row_s=plan_row_s,
        plan_shard_s=_plan_shard_s(paper[-1], plan_row_s),
        **driver_memory(paper, ids),
        **graph_memory(_read(folder, "scale-graph")["results"]),
    )


def _read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


def _requests(s3: dict[str, Any]) -> dict[str, Any]:
    """Requests per chunk and per shard, and the sequential ones of publishing."""
    plan, at_chunks, publish = (s3["by_part"][name] for name in ("plan", "chunks", "publish"))
    chunks, shards = s3["chunks"], s3["shards"]
    of_chunk_files = _CHUNK_FILE_GETS * chunks
    of_shards = _count(publish, "get", "head") - of_chunk_files
    return {
        "puts": _count(at_chunks, "put") / chunks + _COUNTING_STAGES * ATTEMPT_PUTS,
        "gets": _count(at_chunks, "get", "head") / chunks
        + _COUNTING_STAGES * ATTEMPT_GETS
        + _END_GETS
        + _CHUNK_FILE_GETS,
        "shard_puts": (_count(publish, "put", "list") + _count(plan, "list")) / shards,
        "shard_gets": (_count(plan, "get", "head") + of_shards) / shards + _END_GETS,
        "publish_turns": (sum(publish.values()) - of_chunk_files) / shards,
    }


def _count(counts: dict[str, int], *kinds: str) -> int:
    return sum(n for name, n in counts.items() if name.startswith(kinds))


def driver_memory(paper: Sequence[dict[str, Any]], ids: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The driver's memory: the line through the peaks of the runs with fewest and most shards.

    paper: at least two runs, which differ in the number of shards.
    """
    ids_mib = ((0.0, 0.0), *((row["rows"], row["grew_mib"]) for row in ids))
    points = []
    for result in paper:
        peak = max(c["peak_mib"] for part in result["stages"].values() for c in part)
        # A chunk of scale-paper is a row.
        points.append((result["shards"], peak - at(result["chunks"], ids_mib)))
    (few, low), (many, high) = min(points), max(points)
    shard_mib = (high - low) / (many - few)
    return {
        "ids_mib": ids_mib,
        "driver_mib": high - many * shard_mib,
        "shard_mib": shard_mib,
    }


def graph_memory(result: dict[str, Any]) -> dict[str, Any]:
    """Memory that Ray adds before the first chunks are committed, and per chunk of the window."""
    (run,) = (stage for stage in result["stages"] if stage["stage"] == "run")
    (_, before), (begun, started) = run["rss_mib"][:2]
    more = min(result["chunks"], result["window_chunks"]) - begun
    return {"ray_mib": started - before, "window_mib": (run["peak_mib"] - started) / more}


def at(x: float, points: Points) -> float:
    """Interpolate linearly between points; outside them, take the value of the nearest one."""
    return float(np.interp(x, [place for place, _ in points], [value for _, value in points]))


def _plan_shard_s(result: dict[str, Any], row_s: float) -> float:
    """Seconds of planning per shard, without those for rows; includes the start of the process."""
    (plan,) = result["stages"]["plan"]
    return max(0.0, float(plan["wall_s"]) - result["chunks"] * row_s) / result["shards"]


def _graph_ratio(results: Sequence[dict[str, Any]], cpus: int) -> float:
    """Processor time of the stages without Ray over the graph's.

    Taken with as many models as cores, so that no core idles and no core is shared.
    """
    rounds = {
        (row["path"], row["actors"]): [*map(measurement_from, row["rounds"])] for row in results
    }
    actors = max(n for path, n in rounds if path == "graph" and n <= cpus)
    return cpu_ratio(rounds["graph", actors], rounds["stages", actors])


def _rest_ms(results: Sequence[dict[str, Any]]) -> float:
    """Processor time per sample of the stages that are neither model nor media."""
    row = next(row for row in results if row["path"] == "stages")
    kept = ("read_samples", "ChunkSpeech", "CurateSpans", "commit_chunk")
    return float(sum(row["rounds"][0]["stage_ms"][name] for name in kept))
