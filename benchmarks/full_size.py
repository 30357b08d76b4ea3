"""Measure the full-size thinker (7B, random weights) on one GPU: plain generation and tracing.

Run from the repository's root: `python -m benchmarks.full_size`, or all GPU checks in ten minutes:
`benchmarks/h200.sh`. The model is built once. For each prompt length and batch size it generates
without tracing; then the generation is replayed for the default pair of signals and for each signal
alone. After each measurement a line is printed and the raw numbers are written, so that a stopped
run keeps its results; `--seconds` limits the time. A case that fails, mostly for lack of memory, is
skipped with a line that says so; only a broken device ends the program.

Plain generation is timed in two parts, each repeated after a run that is discarded: the prompt is
run into the cache, then transformers' `generate` decodes all tokens from there, the first from the
last prompt token. The prompt is run in slices and without its logits: in one piece, as `generate`
does it, the logits of 32 prompts of 32,000 tokens alone take 290 GiB, which no GPU has. So
`generate` on whole prompts takes more memory and time than the plain row says.

Peaks are those of a row's own work: a traced generation needs the larger of the two rows' peaks.

Distance from the bandwidth limit: the time of a decoding step, divided by the time that the device
needs to read the decoder's weights and the cached keys and values once, at the measured bandwidth
of a copy. 1.0 would be a perfect decoder. For the replay, the time of all its tokens is divided by
the time of reading them once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.tracing_cases import Case, Settings
from benchmarks.tracing_child import Runner
from benchmarks.tracing_model import SIZES, Prompt, Size, build_model
from omnitrace_core.backends.caches import growing_cache, keep_prompt
from omnitrace_core.options import TraceOptions
from omnitrace_core.tracing.failures import free_memory, is_broken_device
from omnitrace_core.tracing.signals import SIGNALS

if TYPE_CHECKING:
    import torch
    from transformers import Cache

T = TypeVar("T")
HERE = Path(__file__).parent
# The default signals, and each signal alone.
DEFAULT_PAIR = ("attboth", "attmean")
SETS: tuple[tuple[str, ...], ...] = (DEFAULT_PAIR, *((name,) for name in SIGNALS))
_WARM_UP_PROMPT, _WARM_UP_TOKENS = 64, 4
# Prompt tokens of all samples that run through the decoder at once, and seconds after which the
# prompt is not run again.
_SLICE_TOKENS, _PREFILL_S = 16_384, 20.0
# Bytes of the copy that measures the bandwidth: much larger than any cache.
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line of the table. signals: empty for plain generation.

    seconds: median time of the generation, or of replay and folds. prefill_s: its part that runs
    the prompt. step_s: time of one decoding step. Both are 0 for a replay. peak_gib: peak of
    allocated memory, including weights. ratio: generation and replay over plain generation.
    limit_distance: see the module. skipped: why there are no numbers.
    """

    prompt: int
    batch: int
    signals: tuple[str, ...]
    seconds: float = 0.0
    prefill_s: float = 0.0
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
        step = "-" if self.signals else f"{self.step_s * 1000:.2f}"
        return (
            f"{head} {self.seconds:>8.3f} {step:>9} {self.ratio:>7.3f} "
            f"{self.peak_gib:>9.2f} {self.limit_distance:>9.2f}"
        )


HEADER = "prompt batch  signals             seconds   ms/step   ratio  peak GiB  distance"


@dataclass(frozen=True, slots=True)
class Device:
    """The device and what its distance from the limit is computed from."""

    name: str
    copy_bytes_per_s: float
    decoder_bytes: int


def measure(
    settings: Settings, args: argparse.Namespace, model: Any, device: Device
) -> Iterator[Measurement]:
    """Yield all measurements, shorter prompts first, until the time is over.

    Raises:
        Exception: the device is broken, so nothing more can be measured.
    """
    end = time.perf_counter() + args.seconds
    for prompt_length in args.prompts:
        for batch in args.batches:
            runner = Runner(Case("traced", prompt_length, batch, DEFAULT_PAIR), settings, model)
            yield from _measure_shape(runner, device, end)
            if time.perf_counter() > end:
                return


def _measure_shape(runner: Runner, device: Device, end: float) -> Iterator[Measurement]:
    """Measure plain generation, then the replay of its last run for each set of signals."""
    case, settings = runner.case, runner.settings
    length = case.prompt + settings.tokens
    cache = _cache_bytes(SIZES[settings.size], settings.dtype, length, case.batch)
    limit_s = (device.decoder_bytes + cache) / device.copy_bytes_per_s
    prompt = runner.prompt(case.prompt)
    made, reason = _attempt(lambda: measure_plain(runner, prompt, limit_s))
    if made is None:
        yield Measurement(case.prompt, case.batch, (), skipped=reason)
        return
    plain, output = made
    yield plain
    for signals in SETS:
        if time.perf_counter() > end:
            return
        replayed, reason = _attempt(
            lambda names=signals: _measure_replay(  # type: ignore[misc]
                runner, prompt, output, names, plain.seconds, limit_s
            )
        )
        yield replayed or Measurement(case.prompt, case.batch, signals, skipped=reason)


def _attempt(work: Callable[[], T]) -> tuple[T | None, str]:
    """The result of `work`, or None and why it failed.

    Raises:
        Exception: the device is broken.
    """
    try:
        return work(), ""
    except Exception as error:
        if is_broken_device(error):
            raise
        reason = _first_line(error)
    # Only here: inside the block, the error's traceback still holds the tensors.
    free_memory()
    return None, reason


def measure_plain(runner: Runner, prompt: Prompt, limit_s: float) -> tuple[Measurement, Any]:
    """Time the prompt and the decoding; return the output of the last generation, too."""
    case, settings = runner.case, runner.settings
    # Leaves the offsets of rotary positions of a batch of texts on the model, which are all 0.
    runner.generate(runner.prompt(_WARM_UP_PROMPT), _WARM_UP_TOKENS)
    # The last prompt token is left to the decoding.
    filled = prompt.length - 1
    _run_prompt(runner, prompt, min(filled, 2 * _slice_length(case.batch)))
    runner.memory.start()
    prefills: list[float] = []
    while not prefills or (len(prefills) < settings.repeats and sum(prefills) < _PREFILL_S):
        cache = None  # before the next one is filled
        begun = runner.now()
        cache = _run_prompt(runner, prompt, filled)
        prefills.append(runner.now() - begun)
    _decode(runner, prompt, cache, _WARM_UP_TOKENS)
    decode_s, output = _timed(
        runner, lambda: _decode(runner, prompt, cache, settings.tokens), settings.repeats
    )
    peak = runner.memory.peak_bytes() / 2**30
    prefill_s, step_s = median(prefills), decode_s / settings.tokens
    seconds, distance = prefill_s + decode_s, step_s / limit_s
    plain = Measurement(
        case.prompt, case.batch, (), seconds, prefill_s, step_s, peak, 1.0, distance
    )
    return plain, output


def _run_prompt(runner: Runner, prompt: Prompt, length: int) -> Cache:
    """Run the first `length` positions of the prompts into a new cache, slice by slice."""
    import torch

    embed = runner.model.get_input_embeddings()
    input_ids, mask = prompt.inputs["input_ids"], prompt.inputs["attention_mask"]
    # Time, height and width are equal in text: [3, B, P].
    positions = (mask.cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)
    cache = growing_cache()
    step = _slice_length(input_ids.shape[0])
    with torch.no_grad():
        for start in range(0, length, step):
            end = min(start + step, length)
            runner.model.model.language_model(
                inputs_embeds=embed(input_ids[:, start:end]),
                attention_mask=mask[:, :end],
                position_ids=positions[:, :, start:end],
                past_key_values=cache,
                use_cache=True,
            )
    return cache


def _slice_length(batch: int) -> int:
    return max(1, _SLICE_TOKENS // batch)


def _decode(runner: Runner, prompt: Prompt, cache: Any, tokens: int) -> Any:
    """Generate `tokens` tokens from a cache that holds the prompt but its last token, or more."""
    keep_prompt(cache, prompt.length - 1)
    return runner.generate(prompt, tokens, past_key_values=cache)


def _measure_replay(
    runner: Runner,
    prompt: Prompt,
    output: Any,
    signals: tuple[str, ...],
    plain_s: float,
    limit_s: float,
) -> Measurement:
    case = runner.case
    runner.trace(prompt, output, signals)
    runner.memory.start()
    repeats = runner.settings.repeats
    added_s, _ = _timed(runner, lambda: runner.trace(prompt, output, signals), repeats)
    return Measurement(
        case.prompt,
        case.batch,
        signals,
        seconds=added_s,
        peak_gib=runner.memory.peak_bytes() / 2**30,
        ratio=(plain_s + added_s) / plain_s,
        limit_distance=added_s / limit_s,
    )


def _timed(runner: Runner, work: Callable[[], T], repeats: int) -> tuple[float, T]:
    """Median seconds of `work`, and its last result. repeats: at least 1."""
    seconds = []
    for _ in range(repeats):
        begun = runner.now()
        result = work()
        seconds.append(runner.now() - begun)
    return median(seconds), result


def find_device(device: str, model: Any) -> Device:
    """Name and bandwidth of a device such as cpu or cuda, and what a decoding step reads."""
    import torch

    name = platform.processor() or device if device == "cpu" else torch.cuda.get_device_name()
    return Device(name, measure_bandwidth(device), _decoder_bytes(model))


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


def _first_line(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:120]


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
    size = SIZES[settings.size]
    model = build_model(size, "sdpa", settings.device, settings.dtype, settings.seed)
    device = find_device(settings.device, model)
    print(
        f"{device.name}: copies run at {device.copy_bytes_per_s / 1e12:.2f} TB/s; "
        f"the decoder has {device.decoder_bytes / 2**30:.1f} GiB"
    )
    print(HEADER, flush=True)
    found: list[Measurement] = []
    for measurement in measure(settings, args, model, device):
        found.append(measurement)
        print(measurement.line(), flush=True)
        content = {
            "settings": asdict(settings),
            "device": asdict(device),
            "results": [asdict(item) for item in found],
        }
        _write(args.output, json.dumps(content, indent=1) + "\n")
    print(f"raw numbers: {args.output}")


def _write(path: Path, text: str) -> None:
    """Replace a file at once, so that a stopped run leaves a whole one."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text)
    unfinished.replace(path)


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
    add("--repeats", type=int, default=3, help="runs that each time is the median of")
    add("--seconds", type=float, default=420.0, help="no measurement begins after so many seconds")
    add("--output", type=Path, default=HERE / "out" / "full-size.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
