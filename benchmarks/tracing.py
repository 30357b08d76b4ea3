"""Measure tracing: time and peak memory beside plain generation and the slow methods.

Run from the repository's root: `python -m benchmarks.tracing` (`--quick` for a short run, `--size
7b --device cuda --dtype bfloat16` on a GPU). All cases have the same weights (random, one seed) and
prompts:

- plain generation;
- traced, with each signal and with the paper's three together: generation, replay and folds;
- eager attention with `output_attentions`, averaged;
- for attgrads, one forward and backward pass per token, measured for a few tokens and scaled.

Each case runs in a separate process, after a short warm-up. On a CPU its peak memory is measured in
another process, where freed memory is returned to the system at once. Prints a table and the
targets, and writes the raw numbers to benchmarks/out/tracing-DEVICE.json (`-quick.json`) or to
`--output`; published runs are in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import get_args

from benchmarks.tracing_cases import (
    PAPER,
    Case,
    Mode,
    Result,
    Settings,
    job_to_json,
    result_from_json,
)
from benchmarks.tracing_memory import RETURN_FREED
from benchmarks.tracing_model import SIZES
from benchmarks.tracing_report import Report
from omnitrace_core.options import TraceOptions
from omnitrace_core.tracing.signals import SIGNALS

HERE = Path(__file__).parent
PROMPTS = (500, 2_000, 6_000)
LONG_PROMPT = 32_000
# The defaults with `--quick`.
QUICK: dict[str, object] = {
    "prompts": [500],
    "batches": [1],
    "tokens": 16,
    "gradient_prompts": [500],
    "gradient_steps": 1,
    "one_process": True,
    "signals": [PAPER],
}


def plan(args: argparse.Namespace) -> list[Case]:
    """The cases to run, without repeats, in the order of the table."""
    cases: list[Case] = []
    for prompt in args.prompts:
        for batch in args.batches:
            if "plain" in args.modes:
                cases.append(Case("plain", prompt, batch))
            if "traced" in args.modes:
                cases += [Case("traced", prompt, batch, signals) for signals in args.signals]
            if "eager" in args.modes and batch == 1:
                cases.append(Case("eager", prompt, batch))
    if "per-token" in args.modes:
        for prompt in args.gradient_prompts:
            cases += [Case("traced", prompt, 1, ("attgrads",)), Case("per-token", prompt, 1)]
    return list(dict.fromkeys(cases))


def run(case: Case, settings: Settings, one_process: bool) -> Result:
    """Measure a case in fresh processes: its time in one and, on a CPU, its peak in another."""
    if one_process or settings.device != "cpu":
        return _run_in_child(case, settings, RETURN_FREED)
    timed = _run_in_child(case, settings, {})
    if timed.skipped:
        return timed
    peak = _run_in_child(case, replace(settings, repeats=1), RETURN_FREED)
    if peak.skipped:
        return peak
    return replace(timed, built_bytes=peak.built_bytes, peak_bytes=peak.peak_bytes)


def _run_in_child(case: Case, settings: Settings, environment: Mapping[str, str]) -> Result:
    """Measure a case in a fresh process; one that fails or is killed is a skipped case."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tracing_child"],
        input=job_to_json(case, settings),
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return Result(case, skipped=f"exit status {done.returncode}: {lines[-1][:200]}")
    return result_from_json(done.stdout.strip().splitlines()[-1])


def write_json(
    path: Path, machine: Mapping[str, object], settings: Settings, results: Sequence[Result]
) -> None:
    """Write the raw numbers with their ratios, the targets, and the machine."""
    report = Report(settings, results)
    rows = [
        asdict(result)
        | {"time_ratio": report.time_ratio(result), "memory_ratio": report.memory_ratio(result)}
        if not result.skipped
        else {"case": asdict(result.case), "skipped": result.skipped}
        for result in results
    ]
    content = {
        "machine": machine,
        "settings": asdict(settings),
        "model": asdict(SIZES[settings.size]),
        "results": rows,
        "targets": [asdict(target) for target in report.targets()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the requested cases."""
    args = _parse(argv)
    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    name = f"tracing-{args.device}{'-quick' if args.quick else ''}.json"
    output = args.output or HERE / "out" / name
    machine = _machine(args.device)
    cases = plan(args)
    measured = _measured(output, machine, settings) if args.resume else {}
    results = list(measured.values())
    for number, case in enumerate(cases, start=1):
        if case in measured:
            continue
        print(
            f"[{number}/{len(cases)}] prompt {case.prompt}, batch {case.batch}, {case.name}",
            file=sys.stderr,
            flush=True,
        )
        results.append(run(case, settings, args.one_process))
        # Written after every case, so that a stopped run keeps its results.
        write_json(output, machine, settings, results)
    report = Report(settings, results)
    print(
        f"{args.size} on {args.device} in {args.dtype}: {args.tokens} response tokens, greedy, "
        f"SDPA; at most {args.repeats} repeats, {args.threads} threads"
    )
    print(report.table())
    for target in report.targets():
        print(target.line())
    print(f"raw numbers: {output}")


def _measured(path: Path, machine: Mapping[str, object], settings: Settings) -> dict[Case, Result]:
    """The results of a stopped run on this machine with these settings."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    if (content["machine"], content["settings"]) != (dict(machine), asdict(settings)):
        raise SystemExit(f"{path} was measured elsewhere or with other settings; name another file")
    rows = [row for row in content["results"] if not row["skipped"]]
    kept = [{k: v for k, v in row.items() if not k.endswith("_ratio")} for row in rows]
    found = [result_from_json(json.dumps(row)) for row in kept]
    return {result.case: result for result in found}


def _machine(device: str) -> dict[str, object]:
    found: dict[str, object] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
    if device != "cpu":
        # A separate process asks for the name, so that this one takes no memory of the device.
        command = [sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())"]
        found["gpu"] = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
    return found


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tracing", description="Measure the time and memory of tracing."
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small subset, about a minute")
    add("--size", choices=sorted(SIZES), default="moderate", help="the model")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    add("--modes", nargs="+", choices=get_args(Mode), default=list(get_args(Mode)))
    add("--prompts", nargs="+", type=int, help="prompt tokens; on a GPU also 32,000")
    add("--batches", nargs="+", type=int, default=[1, 8], help="eager: only batch 1")
    add(
        "--signals",
        nargs="+",
        type=_signals,
        help="sets of signals, such as attmean or attmean,attraw",
    )
    add("--tokens", type=int, default=64, help="response tokens")
    add("--repeats", type=int, default=3, help="repeats of each generation and its trace")
    add("--case-s", type=float, default=120.0, help="no repeat begins after so many seconds")
    add("--gradient-prompts", nargs="+", type=int, default=[500, 1_500])
    add("--gradient-steps", type=int, default=2, help="tokens measured per token")
    add("--one-process", action="store_true", help="times and peak in one process, half the time")
    add("--threads", type=int, default=os.cpu_count() or 1)
    add("--rows-mib", type=int, default=TraceOptions().rows_mib, help="as trace.rows_mib")
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="keep the cases that are already in the output")
    add("--output", type=Path, help="file for the raw numbers")
    if "--quick" in (sys.argv[1:] if argv is None else argv):
        parser.set_defaults(**QUICK)
    args = parser.parse_args(argv)
    if args.prompts is None:
        args.prompts = [*PROMPTS, *([] if args.device == "cpu" else [LONG_PROMPT])]
    if args.signals is None:
        args.signals = [*((name,) for name in SIGNALS), PAPER]
    return args


def _signals(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in SIGNALS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {unknown[0]!r}; valid: {', '.join(SIGNALS)}")
    return names


if __name__ == "__main__":
    main()
