"""What a corpus costs: GPU-hours, CPU cores, requests, storage and dollars, for two sizes.

Run from the repository's root: `python -m benchmarks.capacity` prints the tables of
docs/capacity.md. What was measured comes from benchmarks/results; what was not is an assumption,
with a low, a middle and a high guess, and stands in the first table. No figure of a GPU is
measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.throughput import course, cpu_ratio

RESULTS = Path(__file__).parent / "results"
SIZES = (10**6, 10**9)
CHUNK, SHARD = 64, 1024  # samples
GUESSES = ("low cost", "middle", "high cost")
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Guess:
    """An assumption: what it is, its values where costs are low, middling and high, and why."""

    what: str
    values: tuple[float, float, float]
    why: str


ASSUMED = {
    "prompt": Guess("prompt tokens per sample", (1000, 2000, 6000), "media make most of them"),
    "response": Guess("response tokens per sample", (128, 256, 512), ""),
    "prefill": Guess("prompt tokens/s, 7B on an H200", (40e3, 20e3, 8e3), "bf16, batched"),
    "decode": Guess("response tokens/s, 7B on an H200", (5000, 2000, 800), "bf16, batched"),
    "busy": Guess("share of paid GPU time at work", (0.95, 0.9, 0.7), "spot, starts, tails"),
    "gpu": Guess("dollars per H200-hour", (2.5, 4.0, 7.0), "spot to on demand"),
    "cpu": Guess("dollars per CPU-core-hour", (0.02, 0.04, 0.06), ""),
    "put": Guess("dollars per 1,000 PUT or LIST", (0.005, 0.005, 0.005), "list price of S3"),
    "get": Guess("dollars per 1,000 GET or HEAD", (0.0004, 0.0004, 0.0004), "list price of S3"),
    "keep": Guess("dollars per GB and month", (0.021, 0.023, 0.025), "list price of S3"),
    "units": Guess("source units per sample", (10, 40, 150), "sentences, seconds, cells"),
    "packed": Guess("bytes kept per 4 bytes of mass", (3.0, 3.6, 4.0), "floats hardly compress"),
}
# Of the samples, a quarter of each. The name is that of benchmarks.media; text needs no decoding.
MIX = {
    "image 1600x1200 JPEG": 0.25,
    "audio 30 s, 44.1 kHz": 0.25,
    "the same, with sound": 0.25,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """From benchmarks/results, of this project's machine (CPUs).

    tracing: traced over plain generation. graph: the graph's throughput over the bare loop's, at
    most 1. decode_s: processor time per sample of the mix. rest_s: of all other CPU stages. puts,
    gets: requests per chunk; shard_puts, shard_gets: per shard. publish: megabytes of masses in a
    part, and seconds of the driver. plan_s: of the driver per row. peak_mib: the driver's memory.
    """

    tracing: float
    graph: float
    decode_s: float
    rest_s: float
    puts: float
    gets: float
    shard_puts: float
    shard_gets: float
    publish: tuple[tuple[float, float], ...]
    plan_s: float
    peak_mib: float


def measured(folder: Path = RESULTS) -> Measured:
    """Read the stored results."""
    tracing = _read(folder, "tracing-cpu")["targets"]
    throughput = _read(folder, "throughput-cpu")["results"]
    media = {row["name"]: row["child_per_s"] for row in _read(folder, "media-cpu")["results"]}
    s3 = _read(folder, "scale-s3")["results"]
    paper = _read(folder, "scale-paper")["results"][-1]
    ids = _read(folder, "scale-ids")["results"][-1]
    publish = _read(folder, "scale-publish")["results"]
    at_chunks = s3["by_part"]["chunks"]
    at_shards = s3["by_part"]["publish"]
    in_plan = s3["by_part"]["plan"]
    # A part is read when its shard is published: per chunk. The rest of publishing is per shard.
    part_gets = at_shards["get_object"] + at_shards["head_object"]
    return Measured(
        tracing=max(t["measured"] for t in tracing if t["name"] == "traced attmean / plain: time"),
        graph=min(1.0, _graph_ratio(throughput)),
        decode_s=sum(share / media[name] for name, share in MIX.items()),
        rest_s=_rest_ms(throughput) / 1e3,
        puts=_of(at_chunks, "put") / s3["chunks"],
        gets=(_of(at_chunks, "get") + _of(at_chunks, "head") + part_gets) / s3["chunks"],
        shard_puts=(_of(at_shards, "put") + _of(at_shards, "list") + _of(in_plan, "list"))
        / s3["shards"],
        shard_gets=(_of(in_plan, "get") + _of(in_plan, "head")) / s3["shards"],
        publish=tuple((row["mass_mb"], row["wall_s"]) for row in publish),
        plan_s=(ids["hash_s"] + ids["search_s"]) / ids["rows"],
        peak_mib=max(c["peak_mib"] for part in paper["stages"].values() for c in part),
    )


def _read(folder: Path, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return told


def _of(counts: dict[str, int], kind: str) -> int:
    return sum(n for name, n in counts.items() if name.startswith(kind))


def _graph_ratio(results: Sequence[dict[str, Any]]) -> float:
    """Processor time of the stages without Ray over the graph's: what is left if no core idles."""
    rounds = {(row["path"], row["actors"]): [*map(course, row["rounds"])] for row in results}
    actors = max(n for path, n in rounds if path == "graph")
    return cpu_ratio(rounds["graph", actors], rounds["stages", actors])


def _rest_ms(results: Sequence[dict[str, Any]]) -> float:
    """Processor time per sample of the stages that are neither model nor media."""
    row = next(row for row in results if row["path"] == "stages")
    kept = ("read_samples", "ChunkAudio", "CurateSpans", "commit_chunk")
    return float(sum(row["rounds"][0]["stage_ms"][name] for name in kept))


# --- the arithmetic ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table: what it is, its value by sample count and guess, and its format."""

    what: str
    value: Callable[[int, Callable[[str], float]], float]
    form: str = ",.0f"


def lines(found: Measured) -> list[Line]:
    """Everything that is computed, each from what stands above it."""

    def gpu_s(of: Callable[[str], float]) -> float:
        model_s = of("prompt") / of("prefill") + of("response") / of("decode")
        return model_s * found.tracing / (found.graph * of("busy"))

    def gpu_h(n: int, of: Callable[[str], float]) -> float:
        return n * gpu_s(of) / _HOUR_S

    def cpu_h(n: int, of: Callable[[str], float]) -> float:
        return n * (found.decode_s + found.rest_s) / _HOUR_S

    def puts(n: int, of: Callable[[str], float]) -> float:
        return n / CHUNK * found.puts + n / SHARD * found.shard_puts

    def gets(n: int, of: Callable[[str], float]) -> float:
        return n / CHUNK * found.gets + n / SHARD * found.shard_gets

    def requests_usd(n: int, of: Callable[[str], float]) -> float:
        return (puts(n, of) * of("put") + gets(n, of) * of("get")) / 1000

    def kept_gb(n: int, of: Callable[[str], float]) -> float:
        # Mass and peak of one signal; spans and samples are small beside them.
        return n * of("response") * of("units") * 2 * of("packed") / 1e9

    def publish_h(n: int, of: Callable[[str], float]) -> float:
        mass_mb = CHUNK * of("response") * of("units") * 8 / 1e6
        sizes, seconds = zip(*found.publish, strict=True)
        return n / CHUNK * float(np.interp(mass_mb, sizes, seconds)) / _HOUR_S

    def dollars(n: int, of: Callable[[str], float]) -> float:
        work = gpu_h(n, of) * of("gpu") + cpu_h(n, of) * of("cpu")
        return work + requests_usd(n, of)

    return [
        Line("GPU-hours", gpu_h),
        Line("GPU dollars", lambda n, of: gpu_h(n, of) * of("gpu")),
        Line("CPU-core-hours", cpu_h),
        Line("CPU dollars", lambda n, of: cpu_h(n, of) * of("cpu")),
        Line(
            "CPU cores per GPU",
            lambda n, of: (found.decode_s + found.rest_s) / gpu_s(of),
            ",.2f",
        ),
        Line("PUT and LIST requests", puts),
        Line("GET and HEAD requests", gets),
        Line("request dollars", requests_usd, ",.2f"),
        Line("GB of traces", kept_gb, ",.1f"),
        Line("dollars a month to keep them", lambda n, of: kept_gb(n, of) * of("keep"), ",.2f"),
        Line("hours to plan (ids of all rows)", lambda n, of: n * found.plan_s / _HOUR_S, ",.2f"),
        Line("hours of publishing, by the driver", publish_h, ",.1f"),
        Line("GPUs that publishing keeps up with", lambda n, of: gpu_h(n, of) / publish_h(n, of)),
        Line("dollars in all, but for storage", dollars),
        Line("dollars per 1,000 samples", lambda n, of: dollars(n, of) / n * 1000, ",.3f"),
    ]


# --- the tables --------------------------------------------------------------------------------


def assumptions_table() -> str:
    """What nobody measured."""
    rows = [
        [guess.what, *(f"{value:,g}" for value in guess.values), guess.why]
        for guess in ASSUMED.values()
    ]
    return _markdown(["assumed, not measured", *GUESSES, ""], rows)


def measured_table(found: Measured) -> str:
    """What the results say."""
    rows = [
        ["traced generation over plain", f"{found.tracing:.3f}", "tracing-cpu"],
        [
            "the graph's throughput over that of its stages without Ray",
            f"{found.graph:.2f}",
            "throughput-cpu",
        ],
        ["decoding media, mean of the mix", f"{1e3 * found.decode_s:.1f} ms", "media-cpu"],
        ["the other CPU stages", f"{1e3 * found.rest_s:.1f} ms", "throughput-cpu"],
        ["PUT per chunk, per shard", f"{found.puts:.2f}, {found.shard_puts:.2f}", "scale-s3"],
        ["GET, HEAD per chunk, per shard", f"{found.gets:.2f}, {found.shard_gets:.2f}", "scale-s3"],
        [
            f"publishing, driver, parts of {', '.join(f'{mb:.1f}' for mb, _ in found.publish)} MB",
            ", ".join(f"{1e3 * spent_s:.0f}" for _, spent_s in found.publish) + " ms per part",
            "scale-publish",
        ],
        ["planning, driver", f"{1e6 * found.plan_s:.2f} s per 10^6 rows", "scale-ids"],
        ["peak memory of the driver", f"{found.peak_mib:.0f} MiB", "scale-paper"],
    ]
    return _markdown(["measured", "value", "from results/"], rows)


def cost_table(found: Measured, n_samples: int) -> str:
    """One size of corpus."""
    rows = []
    for line in lines(found):
        values = (
            line.value(n_samples, lambda name, i=i: ASSUMED[name].values[i]) for i in range(3)
        )
        rows.append([line.what, *(format(value, line.form) for value in values)])
    return _markdown([f"10^{len(str(n_samples)) - 1} samples", *GUESSES], rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables() -> str:
    """All tables, as docs/capacity.md holds them."""
    found = measured()
    costs = [cost_table(found, size) for size in SIZES]
    return "\n\n".join([assumptions_table(), measured_table(found), *costs])


if __name__ == "__main__":
    print(tables())
