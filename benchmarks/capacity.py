"""What a corpus costs: GPU-hours, CPU cores, requests, storage and dollars, for two sizes.

Run from the repository's root: `python -m benchmarks.capacity` prints the tables of
docs/capacity.md. Measurements come from benchmarks/results, and the layout of the graph from the
config for GPUs (`capacity_measured` reads both). The first table lists the assumptions, which are
not measured: each has a low, a middle and a high guess. No figure of a GPU is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.capacity_measured import Graph, Measured, at, measured, shipped
from omnitrace_core.storage.s3_writes import PART_BYTES
from pipeline.planning import input_shards
from pipeline.run_folder import publish

# Samples of a corpus, and of each of its shards.
SIZES = ((10**6, 1024), (10**9, 16_384))
SHARDS = (1024, 16_384, 131_072)  # sizes of shards to compare, for the larger corpus
GUESSES = ("low cost", "middle", "high cost")
# Sequential requests of reading a shard: HEAD, the end of the file, its rows.
_SEQUENTIAL_READS = 3
_SPARE = 2.0  # actors per actor that decoding alone keeps busy
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Guess:
    """An assumption: its label, its values for low, middle and high cost, and the reason."""

    label: str
    values: tuple[float, float, float]
    reason: str


ASSUMED = {
    "prompt": Guess("prompt tokens per sample", (1000, 2000, 6000), "media make most of them"),
    "response": Guess("response tokens per sample", (128, 256, 512), ""),
    "prefill": Guess("prompt tokens/s, 7B on an H200", (40e3, 20e3, 8e3), "bf16, batched"),
    "decode": Guess("response tokens/s, 7B on an H200", (5000, 2000, 800), "bf16, batched"),
    "busy": Guess("share of paid GPU time in use", (0.95, 0.9, 0.7), "spot, starts, tails"),
    "gpu": Guess("dollars per H200-hour", (2.5, 4.0, 7.0), "spot to on demand"),
    "own": Guess("CPU cores that come with a GPU", (24, 24, 24), "p5en.48xlarge: 192 with 8"),
    "cpu": Guess("dollars per CPU-core-hour", (0.02, 0.04, 0.06), "spot to on demand"),
    "put": Guess("dollars per 1,000 PUT or LIST", (0.005, 0.005, 0.005), "list price of S3"),
    "get": Guess("dollars per 1,000 GET or HEAD", (0.0004, 0.0004, 0.0004), "list price of S3"),
    "keep": Guess("dollars per GB and month", (0.021, 0.023, 0.025), "list price of S3"),
    "wait": Guess("ms per request of the driver", (15, 30, 60), "S3 in the same region"),
    "units": Guess("source units per sample", (10, 40, 150), "sentences, seconds, cells"),
    "packed": Guess("bytes stored per 4 bytes of mass", (3.0, 3.6, 4.0), "floats hardly compress"),
}
# The value of an assumption, by its name in ASSUMED.
Guesses = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a cost table.

    value: from the number of samples and the guesses. format_spec: for the value. paid: whether the
    value is dollars that count in the total.
    """

    label: str
    value: Callable[[int, Guesses], float]
    format_spec: str = ",.0f"
    paid: bool = False


def lines(found: Measured, graph: Graph, shard: int) -> list[Line]:
    """All rows of a cost table, for shards of `shard` samples."""
    parts = [*_work(found, graph), *_storage(found, graph, shard), *_driver(found, graph, shard)]

    def dollars(n: int, guess: Guesses) -> float:
        return sum(line.value(n, guess) for line in parts if line.paid)

    return [
        *parts,
        Line("total dollars without storage", dollars),
        Line("dollars per 1,000 samples", lambda n, guess: dollars(n, guess) / n * 1000, ",.3f"),
    ]


def gpu_s(found: Measured, guess: Guesses) -> float:
    """Paid GPU seconds per sample."""
    model_s = guess("prompt") / guess("prefill") + guess("response") / guess("decode")
    return model_s * found.tracing / (found.graph * guess("busy"))


def _work(found: Measured, graph: Graph) -> list[Line]:
    cpu_s = found.decode_s + found.rest_s
    reserved, beside = graph.cpus / graph.gpus, graph.beside / graph.gpus

    def gpu_h(n: int, guess: Guesses) -> float:
        return n * gpu_s(found, guess) / _HOUR_S

    def decoders(n: int, guess: Guesses) -> float:
        return max(1, math.ceil(_SPARE * found.decode_s / gpu_s(found, guess)))

    return [
        Line("GPU-hours", gpu_h),
        Line("GPU dollars", lambda n, guess: gpu_h(n, guess) * guess("gpu"), paid=True),
        Line("CPU-core-hours of work", lambda n, guess: n * cpu_s / _HOUR_S),
        Line("busy CPU cores per GPU", lambda n, guess: cpu_s / gpu_s(found, guess), ",.2f"),
        Line("reserved CPU cores per GPU", lambda n, guess: reserved, ",.1f"),
        Line(
            "dollars for cores beyond those of the GPU nodes",
            lambda n, guess: max(0.0, reserved - guess("own")) * gpu_h(n, guess) * guess("cpu"),
            paid=True,
        ),
        Line(
            "extra dollars with the other stages on decode nodes",
            lambda n, guess: beside * gpu_h(n, guess) * guess("cpu"),
        ),
        Line("decode_actors needed per GPU", decoders),
    ]


def _storage(found: Measured, graph: Graph, shard: int) -> list[Line]:
    def kept_gb(n: int, guess: Guesses) -> float:
        # Mass and peak of one signal; spans and samples are small beside them.
        return n * guess("response") * guess("units") * 2 * guess("packed") / 1e9

    def puts(n: int, guess: Guesses) -> float:
        # Large files are uploaded in parts.
        in_parts = kept_gb(n, guess) * 1e9 / PART_BYTES
        return n / graph.chunk * found.puts + n / shard * found.shard_puts + in_parts

    def gets(n: int, guess: Guesses) -> float:
        return n / graph.chunk * found.gets + n / shard * found.shard_gets

    def requests_usd(n: int, guess: Guesses) -> float:
        return (puts(n, guess) * guess("put") + gets(n, guess) * guess("get")) / 1000

    return [
        Line("PUT and LIST requests", puts),
        Line("GET and HEAD requests", gets),
        Line("request dollars", requests_usd, ",.2f", paid=True),
        Line("GB of traces", kept_gb, ",.1f"),
        Line(
            "dollars per month to store them",
            lambda n, guess: kept_gb(n, guess) * guess("keep"),
            ",.2f",
        ),
    ]


def _driver(found: Measured, graph: Graph, shard: int) -> list[Line]:
    def memory_gb(n: int, guess: Guesses) -> float:
        mib = found.driver_mib + at(n, found.ids_mib) + n / shard * found.shard_mib
        mib += found.ray_mib + min(n / graph.chunk, graph.window) * found.window_mib
        return mib * 2**20 / 1e9

    def plan_h(n: int, guess: Guesses) -> float:
        wait_s = _SEQUENTIAL_READS * guess("wait") / 1e3 / input_shards.SCAN_THREADS
        return (n * found.plan_row_s + n / shard * (found.plan_shard_s + wait_s)) / _HOUR_S

    def publish_h(n: int, guess: Guesses) -> float:
        mass_mb = graph.chunk * guess("response") * guess("units") * 8 / 1e6
        # Threads read chunk files ahead, so the driver waits only where reading takes longer.
        wait_s = guess("wait") / 1e3 / publish.READ_THREADS
        file_s = max(at(mass_mb, found.publish), wait_s)
        shard_s = found.publish_turns * guess("wait") / 1e3
        return (n / graph.chunk * file_s + n / shard * shard_s) / _HOUR_S

    return [
        Line("GB of memory of the driver", memory_gb, ",.2f"),
        Line("hours to plan, at each start", plan_h, ",.2f"),
        Line("hours of publishing, by the driver", publish_h, ",.1f"),
        Line(
            "GPUs that publishing keeps up with",
            lambda n, guess: n * gpu_s(found, guess) / _HOUR_S / publish_h(n, guess),
        ),
    ]


def assumptions_table() -> str:
    """The assumptions."""
    rows = [
        [guess.label, *(f"{value:,g}" for value in guess.values), guess.reason]
        for guess in ASSUMED.values()
    ]
    return _markdown(["assumed, not measured", *GUESSES, ""], rows)


def measured_table(found: Measured, graph: Graph) -> str:
    """The values from the results and from the config."""
    file_mb = ", ".join(f"{mb:.1f}" for mb, _ in found.publish)
    file_ms = ", ".join(f"{1e3 * spent_s:.0f}" for _, spent_s in found.publish)
    rows = [
        ["time of traced generation over plain", f"{found.tracing:.3f}", "tracing-cpu"],
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
            f"publishing, driver, chunk files of {file_mb} MB",
            f"{file_ms} ms per file",
            "scale-publish",
        ],
        [
            "publishing, sequential requests",
            f"{found.publish_turns:.1f} per shard",
            "scale-s3",
        ],
        ["planning, driver", f"{1e6 * found.plan_row_s:.2f} s per 10^6 rows", "scale-ids"],
        ["planning, driver", f"{1e3 * found.plan_shard_s:.1f} ms per shard", "scale-paper"],
        ["memory of the driver, finding ids", f"{found.ids_mib[-1][1]:.0f} MiB", "scale-ids"],
        ["memory of the driver, all else", f"{found.driver_mib:.0f} MiB", "scale-paper"],
        ["memory of the driver, per shard", f"{1024 * found.shard_mib:.1f} KiB", "scale-paper"],
        ["memory of the driver, Ray", f"{found.ray_mib:.0f} MiB", "scale-graph"],
        [
            "memory of the driver, per chunk of a window",
            f"{1024 * found.window_mib:.0f} KiB",
            "scale-graph",
        ],
        ["samples per chunk", f"{graph.chunk}", "qwen2_5_omni.yaml"],
        ["chunks per window", f"{graph.window:,}", "qwen2_5_omni.yaml"],
        ["reserved CPUs, reserved GPUs", f"{graph.cpus:g}, {graph.gpus:g}", "qwen2_5_omni.yaml"],
        ["of these CPUs, not for the model's stage", f"{graph.beside:g}", "qwen2_5_omni.yaml"],
    ]
    return _markdown(["measured or configured", "value", "from results/ or configs/"], rows)


def cost_table(found: Measured, graph: Graph, n_samples: int, shard: int) -> str:
    """The costs of one size of corpus."""
    rows = []
    for line in lines(found, graph, shard):
        values = (line.value(n_samples, guesses(i)) for i in range(len(GUESSES)))
        rows.append([line.label, *(format(value, line.format_spec) for value in values)])
    return _markdown([f"{_power(n_samples)} samples in shards of {shard:,}", *GUESSES], rows)


def shards_table(found: Measured, graph: Graph, n_samples: int) -> str:
    """The rows that depend on the size of shards, at middle guesses."""
    by_shard = [_driver(found, graph, shard) for shard in SHARDS]
    rows = [
        [
            same[0].label,
            *(format(line.value(n_samples, guesses(1)), line.format_spec) for line in same),
        ]
        for same in zip(*by_shard, strict=True)
    ]
    head = [f"{_power(n_samples)} samples, middle guesses", *(f"shards of {n:,}" for n in SHARDS)]
    return _markdown(head, rows)


def guesses(column: int) -> Guesses:
    """The assumptions of a column of the tables."""
    return lambda name: ASSUMED[name].values[column]


def _power(n_samples: int) -> str:
    return f"10^{len(str(n_samples)) - 1}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables() -> str:
    """All tables, as in docs/capacity.md."""
    found, graph = measured(), shipped()
    costs = [cost_table(found, graph, *size) for size in SIZES]
    compared = shards_table(found, graph, SIZES[-1][0])
    return "\n\n".join([assumptions_table(), measured_table(found, graph), *costs, compared])


if __name__ == "__main__":
    print(tables())
