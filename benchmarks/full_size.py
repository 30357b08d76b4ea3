"""Measure the full-size thinker (7B, random weights) on one GPU: plain generation and tracing.

Run from the repository's root: `python -m benchmarks.full_size`, or all GPU checks in ten minutes:
`benchmarks/h200.sh`. The model is built once. For each prompt length and batch size it generates
without tracing; then the generation is replayed for the default pair of signals and for each signal
alone. After each measurement a line is printed and the raw numbers are written, so that a stopped
run keeps its results; `--seconds` limits the time. Cases that do not fit in memory are skipped,
with a line that says so.

Distance from the bandwidth limit: the time of a decoding step, divided by the time that the device
needs to read the decoder's weights and the cached keys and values once, at the measured bandwidth
of a copy. 1.0 would be a perfect decoder. For the replay, the time of all its tokens is divided by
the time of reading them once.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.tracing_cases import Case, Settings
from benchmarks.tracing_child import Runner
from benchmarks.tracing_model import SIZES, Prompt, Size, build_model
from omnitrace_core.options import TraceOptions
from omnitrace_core.tracing.signals import SIGNALS

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).parent
# The default signals, and each signal alone.
DEFAULT_PAIR = ("attboth", "attmean")
SETS: tuple[tuple[str, ...], ...] = (DEFAULT_PAIR, *((name,) for name in SIGNALS))
_WARM_UP_PROMPT, _WARM_UP_TOKENS = 64, 4
# Bytes of the copy that measures the bandwidth: much larger than any cache.
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line of the table. signals: empty for plain generation.

    seconds: median time of the generation, or of replay and folds. step_s: time of one decoding
    step. peak_gib: peak of allocated memory, including weights. ratio: generation and replay over
    plain generation. limit_distance: see the module. skipped: why there are no numbers.
    """

    prompt: int
    batch: int
    signals: tuple[str, ...]
    seconds: float = 0.0
    step_s: float = 0.0
    peak_gib: float = 0.0
    ratio: float = 0.0
    limit_distance: float = 0.0
    skipped: str = ""

    def line(self) -> str:
        """The printed line."""
        name = "+".join(self.signals) or "plain"
        head = f"{self.prompt:>6} {self.batch:>5}  {name:<18}"
        if self.skipped:
            return f"{head} skipped: {self.skipped}"
        return (
            f"{head} {self.seconds:>8.3f} {self.step_s * 1000:>9.2f} {self.ratio:>7.3f} "
            f"{self.peak_gib:>9.2f} {self.limit_distance:>9.2f}"
        )


HEADER = "prompt batch  signals             seconds   ms/step   ratio  peak GiB  distance"


def measure(settings: Settings, args: argparse.Namespace) -> Iterator[Measurement]:
    """Yield all measurements, shorter prompts first, until the time is over."""
    end = time.perf_counter() + args.seconds
    size = SIZES[settings.size]
    model = build_model(size, "sdpa", settings.device, settings.dtype, settings.seed)
    weights = _decoder_bytes(model)
    bandwidth = measure_bandwidth(settings.device)
    print(f"copies run at {bandwidth / 1e12:.2f} TB/s; the decoder has {weights / 2**30:.1f} GiB")
    print(HEADER, flush=True)
    for prompt_length in args.prompts:
        for batch in args.batches:
            runner = Runner(Case("traced", prompt_length, batch, DEFAULT_PAIR), settings, model)
            cache = _cache_bytes(size, settings.dtype, prompt_length + settings.tokens, batch)
            limit_s = (weights + cache) / bandwidth
            yield from _measure_shape(runner, limit_s, end)
            if time.perf_counter() > end:
                return


def _measure_shape(runner: Runner, limit_s: float, end: float) -> Iterator[Measurement]:
    """Measure plain generation, then the replay of its last run for each set of signals."""
    case, tokens = runner.case, runner.settings.tokens
    try:
        runner.generate(runner.prompt(_WARM_UP_PROMPT), _WARM_UP_TOKENS)
        prompt = runner.prompt(case.prompt)
        prefill_s = _timed(runner, lambda: runner.generate(prompt, 1), 1)[0]
        runner.memory.start()
        seconds, output = _timed(runner, lambda: runner.generate(prompt, tokens), 1)
        peak = runner.memory.peak_bytes() / 2**30
    except _out_of_memory() as error:
        yield Measurement(case.prompt, case.batch, (), skipped=_first_line(error))
        _free_cache(runner.settings.device)
        return
    step_s = (seconds - prefill_s) / max(tokens - 1, 1)
    yield Measurement(case.prompt, case.batch, (), seconds, step_s, peak, 1.0, step_s / limit_s)
    for signals in SETS:
        if time.perf_counter() > end:
            return
        yield _measure_replay(runner, prompt, output, signals, seconds, limit_s)


def _measure_replay(
    runner: Runner,
    prompt: Prompt,
    output: Any,
    signals: tuple[str, ...],
    plain_s: float,
    limit_s: float,
) -> Measurement:
    case = runner.case
    try:
        runner.trace(prompt, output, signals)
        runner.memory.start()
        repeats = runner.settings.repeats
        added_s, _ = _timed(runner, lambda: runner.trace(prompt, output, signals), repeats)
        peak = runner.memory.peak_bytes() / 2**30
    except _out_of_memory() as error:
        _free_cache(runner.settings.device)
        return Measurement(case.prompt, case.batch, signals, skipped=_first_line(error))
    ratio = (plain_s + added_s) / plain_s
    return Measurement(
        case.prompt, case.batch, signals, added_s, 0.0, peak, ratio, added_s / limit_s
    )


def _timed(runner: Runner, work: Any, repeats: int) -> tuple[float, Any]:
    """Median seconds of `work`, and its last result."""
    seconds = []
    result = None
    for _ in range(repeats):
        begun = runner.now()
        result = work()
        seconds.append(runner.now() - begun)
    return median(seconds), result


def measure_bandwidth(device: str) -> float:
    """Bytes per second that a copy within the device reads and writes; the best of five."""
    import torch

    kind = device.split(":")[0]
    source = torch.zeros(_COPY_BYTES[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        _synchronize(device)
        begun = time.perf_counter()
        target.copy_(source)
        _synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * source.numel() / best


def _decoder_bytes(model: Any) -> int:
    """Bytes of the weights that a decoding step reads: the layers and the output head."""
    read: list[torch.Tensor] = [
        *model.model.language_model.layers.parameters(),
        *model.lm_head.parameters(),
    ]
    return sum(weight.numel() * weight.element_size() for weight in read)


def _cache_bytes(size: Size, dtype: str, length: int, batch: int) -> int:
    """Bytes of the keys and values of a batch of `batch` sequences of `length` positions."""
    width = 4 if dtype == "float32" else 2
    head = size.hidden // size.heads
    return 2 * size.layers * size.key_heads * head * width * length * batch


def _synchronize(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def _out_of_memory() -> tuple[type[BaseException], ...]:
    import torch

    return (torch.cuda.OutOfMemoryError, MemoryError)


def _free_cache(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.empty_cache()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write the results."""
    args = _parse(argv)
    settings = Settings(
        size=args.size,
        device=args.device,
        dtype=args.dtype,
        tokens=args.tokens,
        repeats=args.repeats,
        case_s=args.seconds,
        gradient_steps=0,
        threads=os.cpu_count() or 1,
        rows_mib=TraceOptions().rows_mib,
        seed=0,
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    found: list[Measurement] = []
    for measurement in measure(settings, args):
        found.append(measurement)
        print(measurement.line(), flush=True)
        content = {"settings": asdict(settings), "results": [asdict(item) for item in found]}
        args.output.write_text(json.dumps(content, indent=1) + "\n")
    print(f"raw numbers: {args.output}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.full_size", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--size", choices=sorted(SIZES), default="7b")
    add("--device", default="cuda")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    add("--prompts", nargs="+", type=int, default=[2_000, 32_000], help="prompt tokens")
    add("--batches", nargs="+", type=int, default=[1, 8, 32])
    add("--tokens", type=int, default=64, help="response tokens")
    add("--repeats", type=int, default=3, help="replays per set of signals")
    add("--seconds", type=float, default=420.0, help="no measurement begins after so many seconds")
    add("--output", type=Path, default=HERE / "out" / "full-size.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
