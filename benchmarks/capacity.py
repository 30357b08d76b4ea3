"""What a corpus costs: GPU-hours, CPU cores, requests, storage and dollars, for two sizes.

Run from the repository's root: `python -m benchmarks.capacity` prints the tables of
docs/capacity.md. What was measured comes from benchmarks/results, how the graph is laid out from
the config for GPUs (both in `capacity_measured`); what was not measured is an assumption, with a
low, a middle and a high guess, and stands in the first table. No figure of a GPU is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.capacity_measured import Graph, Measured, at, measured, shipped
from omnitrace_core.storage.s3_writes import PART_BYTES
from pipeline.planning import inputs
from pipeline.run_folder import publish

# Samples of a corpus, and of each of its shards.
SIZES = ((10**6, 1024), (10**9, 16_384))
SHARDS = (1024, 16_384, 131_072)  # of the last size, compared
GUESSES = ("low cost", "middle", "high cost")
# One request waits for the other when a shard is read: HEAD, its end, its rows.
_READ_TURNS = 3
_SPARE = 2.0  # actors over what the decoding alone would keep busy
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
    "own": Guess("CPU cores that come with a GPU", (24, 24, 24), "p5en.48xlarge: 192 with 8"),
    "cpu": Guess("dollars per CPU-core-hour", (0.02, 0.04, 0.06), "spot to on demand"),
    "put": Guess("dollars per 1,000 PUT or LIST", (0.005, 0.005, 0.005), "list price of S3"),
    "get": Guess("dollars per 1,000 GET or HEAD", (0.0004, 0.0004, 0.0004), "list price of S3"),
    "keep": Guess("dollars per GB and month", (0.021, 0.023, 0.025), "list price of S3"),
    "wait": Guess("ms per request of the driver", (15, 30, 60), "S3 in the same region"),
    "units": Guess("source units per sample", (10, 40, 150), "sentences, seconds, cells"),
    "packed": Guess("bytes kept per 4 bytes of mass", (3.0, 3.6, 4.0), "floats hardly compress"),
}
Of = Callable[[str], float]


# --- the arithmetic ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table: what it is, its value by sample count and guess, and its format.

    paid: dollars that count in the sum.
    """

    what: str
    value: Callable[[int, Of], float]
    form: str = ",.0f"
    paid: bool = False


def lines(found: Measured, graph: Graph, shard: int) -> list[Line]:
    """Everything that is computed, for shards of so many samples."""
    told = [*_work(found, graph), *_storage(found, graph, shard), *_driver(found, graph, shard)]

    def dollars(n: int, of: Of) -> float:
        return sum(line.value(n, of) for line in told if line.paid)

    return [
        *told,
        Line("dollars in all, but for storage", dollars),
        Line("dollars per 1,000 samples", lambda n, of: dollars(n, of) / n * 1000, ",.3f"),
    ]


def gpu_s(found: Measured, of: Of) -> float:
    """Paid GPU time of a sample."""
    model_s = of("prompt") / of("prefill") + of("response") / of("decode")
    return model_s * found.tracing / (found.graph * of("busy"))


def _work(found: Measured, graph: Graph) -> list[Line]:
    cpu_s = found.decode_s + found.rest_s
    reserved, beside = graph.cpus / graph.gpus, graph.beside / graph.gpus

    def gpu_h(n: int, of: Of) -> float:
        return n * gpu_s(found, of) / _HOUR_S

    def decoders(n: int, of: Of) -> float:
        return max(1, math.ceil(_SPARE * found.decode_s / gpu_s(found, of)))

    return [
        Line("GPU-hours", gpu_h),
        Line("GPU dollars", lambda n, of: gpu_h(n, of) * of("gpu"), paid=True),
        Line("CPU-core-hours at work", lambda n, of: n * cpu_s / _HOUR_S),
        Line("CPU cores at work per GPU", lambda n, of: cpu_s / gpu_s(found, of), ",.2f"),
        Line("CPU cores reserved per GPU", lambda n, of: reserved, ",.1f"),
        Line(
            "dollars for cores beyond those of the GPU nodes",
            lambda n, of: max(0.0, reserved - of("own")) * gpu_h(n, of) * of("cpu"),
            paid=True,
        ),
        Line(
            "dollars more with the other stages on decode nodes",
            lambda n, of: beside * gpu_h(n, of) * of("cpu"),
        ),
        Line("decode_actors per GPU that suffice", decoders),
    ]


def _storage(found: Measured, graph: Graph, shard: int) -> list[Line]:
    def kept_gb(n: int, of: Of) -> float:
        # Mass and peak of one signal; spans and samples are small beside them.
        return n * of("response") * of("units") * 2 * of("packed") / 1e9

    def puts(n: int, of: Of) -> float:
        # Large files go up in parts.
        in_parts = kept_gb(n, of) * 1e9 / PART_BYTES
        return n / graph.chunk * found.puts + n / shard * found.shard_puts + in_parts

    def gets(n: int, of: Of) -> float:
        return n / graph.chunk * found.gets + n / shard * found.shard_gets

    def requests_usd(n: int, of: Of) -> float:
        return (puts(n, of) * of("put") + gets(n, of) * of("get")) / 1000

    return [
        Line("PUT and LIST requests", puts),
        Line("GET and HEAD requests", gets),
        Line("request dollars", requests_usd, ",.2f", paid=True),
        Line("GB of traces", kept_gb, ",.1f"),
        Line("dollars a month to keep them", lambda n, of: kept_gb(n, of) * of("keep"), ",.2f"),
    ]


def _driver(found: Measured, graph: Graph, shard: int) -> list[Line]:
    def memory_gb(n: int, of: Of) -> float:
        mib = found.driver_mib + at(n, found.ids_mib) + n / shard * found.shard_mib
        mib += found.ray_mib + min(n / graph.chunk, graph.window) * found.window_mib
        return mib * 2**20 / 1e9

    def plan_h(n: int, of: Of) -> float:
        wait_s = _READ_TURNS * of("wait") / 1e3 / inputs.SCAN_THREADS
        return (n * found.plan_row_s + n / shard * (found.plan_shard_s + wait_s)) / _HOUR_S

    def publish_h(n: int, of: Of) -> float:
        mass_mb = graph.chunk * of("response") * of("units") * 8 / 1e6
        # Parts come ahead of the work on them, as fast as so many threads get them.
        wait_s = of("wait") / 1e3 / publish.READ_THREADS
        file_s = max(at(mass_mb, found.publish), wait_s)
        shard_s = found.publish_turns * of("wait") / 1e3
        return (n / graph.chunk * file_s + n / shard * shard_s) / _HOUR_S

    return [
        Line("GB of memory of the driver", memory_gb, ",.2f"),
        Line("hours to plan, at each start", plan_h, ",.2f"),
        Line("hours of publishing, by the driver", publish_h, ",.1f"),
        Line(
            "GPUs that publishing keeps up with",
            lambda n, of: n * gpu_s(found, of) / _HOUR_S / publish_h(n, of),
        ),
    ]


# --- the tables --------------------------------------------------------------------------------


def assumptions_table() -> str:
    """What nobody measured."""
    rows = [
        [guess.what, *(f"{value:,g}" for value in guess.values), guess.why]
        for guess in ASSUMED.values()
    ]
    return _markdown(["assumed, not measured", *GUESSES, ""], rows)


def measured_table(found: Measured, graph: Graph) -> str:
    """What the results and the config say."""
    file_mb = ", ".join(f"{mb:.1f}" for mb, _ in found.publish)
    file_ms = ", ".join(f"{1e3 * spent_s:.0f}" for _, spent_s in found.publish)
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
            f"publishing, driver, chunk files of {file_mb} MB",
            f"{file_ms} ms per file",
            "scale-publish",
        ],
        [
            "publishing, requests one after the other",
            f"{found.publish_turns:.1f} per shard",
            "scale-s3",
        ],
        ["planning, driver", f"{1e6 * found.plan_row_s:.2f} s per 10^6 rows", "scale-ids"],
        ["planning, driver", f"{1e3 * found.plan_shard_s:.1f} ms per shard", "scale-paper"],
        ["memory of the driver, finding ids", f"{found.ids_mib[-1][1]:.0f} MiB", "scale-ids"],
        ["memory of the driver, else", f"{found.driver_mib:.0f} MiB", "scale-paper"],
        ["memory of the driver, per shard", f"{1024 * found.shard_mib:.1f} KiB", "scale-paper"],
        ["memory of the driver, Ray", f"{found.ray_mib:.0f} MiB", "scale-graph"],
        [
            "memory of the driver, per chunk of a window",
            f"{1024 * found.window_mib:.0f} KiB",
            "scale-graph",
        ],
        ["samples per chunk", f"{graph.chunk}", "qwen2_5_omni.yaml"],
        ["chunks per window", f"{graph.window:,}", "qwen2_5_omni.yaml"],
        ["CPUs reserved, GPUs", f"{graph.cpus:g}, {graph.gpus:g}", "qwen2_5_omni.yaml"],
        ["of these CPUs, beside the model", f"{graph.beside:g}", "qwen2_5_omni.yaml"],
    ]
    return _markdown(["measured, or set", "value", "from results/ or configs/"], rows)


def cost_table(found: Measured, graph: Graph, n_samples: int, shard: int) -> str:
    """One size of corpus."""
    rows = []
    for line in lines(found, graph, shard):
        values = (line.value(n_samples, guess(i)) for i in range(len(GUESSES)))
        rows.append([line.what, *(format(value, line.form) for value in values)])
    return _markdown([f"{_power(n_samples)} samples in shards of {shard:,}", *GUESSES], rows)


def shards_table(found: Measured, graph: Graph, n_samples: int) -> str:
    """What the size of shards changes, at middle guesses."""
    by_shard = [_driver(found, graph, shard) for shard in SHARDS]
    rows = [
        [same[0].what, *(format(line.value(n_samples, guess(1)), line.form) for line in same)]
        for same in zip(*by_shard, strict=True)
    ]
    head = [f"{_power(n_samples)} samples, middle guesses", *(f"shards of {n:,}" for n in SHARDS)]
    return _markdown(head, rows)


def guess(column: int) -> Of:
    """What is assumed in a column of the tables."""
    return lambda name: ASSUMED[name].values[column]


def _power(n_samples: int) -> str:
    return f"10^{len(str(n_samples)) - 1}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables() -> str:
    """All tables, as docs/capacity.md holds them."""
    found, graph = measured(), shipped()
    costs = [cost_table(found, graph, *size) for size in SIZES]
    compared = shards_table(found, graph, SIZES[-1][0])
    return "\n\n".join([assumptions_table(), measured_table(found, graph), *costs, compared])


if __name__ == "__main__":
    print(tables())
