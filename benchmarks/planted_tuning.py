"""Choose the curation of the planted thinker: `python -m benchmarks.planted_tuning`.

Scores every combination of projection, pools and thresholds for one signal, on a separate split
(`--seed tuning`). `benchmarks.planted` reports the chosen combination on another split. The score
is the F1 of correctly answered sentences, first by group of tasks, then the mean over groups, so
that each group has the same weight.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.planted import POOLS, PROJECTIONS, SIGNAL, chosen, load_tracer
from benchmarks.planted_cases import GROUPS, Case, answer
from omnitrace_core.attribution.curation import Projection
from omnitrace_core.attribution.scores import f1
from omnitrace_core.options import CurationOptions, SpanOptions
from omnitrace_core.text.spans import Segmenter

GRID: dict[str, tuple[float, ...]] = {
    "gamma": (0.5, 1.0, 2.0, 4.0),
    "coverage": (0.7, 0.85, 0.95),
    "p_min": (0.07, 0.15, 0.25),
}


def settings() -> Iterator[tuple[Projection, CurationOptions]]:
    """Every combination. `run_min` is at least `p_min`: below it, a run would keep no unit more."""
    for projection, pools in product(PROJECTIONS, POOLS):
        for gamma, coverage, p_min in product(*GRID.values()):
            yield (
                projection,
                CurationOptions(
                    pools=pools,
                    gamma=gamma,
                    coverage=coverage,
                    p_min=p_min,
                    run_min=max(0.10, p_min),
                ),
            )


def score(
    cases: Sequence[Case], signal: str, projection: Projection, options: CurationOptions
) -> dict[str, float]:
    """Mean F1 of right sentences by group of tasks."""
    of_task: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        sources = chosen(case, signal, projection, options)
        of_task[case.sample.task] += [
            f1(sources[span], evidence)
            for span, evidence in zip(case.spans, case.evidence, strict=True)
            if span is not None
        ]
    found = {}
    for group, tasks in GROUPS.items():
        scores = [number for task in tasks for number in of_task[task]]
        if scores:
            found[group] = float(np.mean(scores))
    return found


Ranked = tuple[float, Projection, CurationOptions, dict[str, float]]


def write_grid(path: Path, ranked: Sequence[Ranked], n_samples: int) -> None:
    """The scores of every combination, best first."""
    rows = [
        {"mean": mean, "projection": projection, "pools": options.pools, "groups": groups}
        | {name: getattr(options, name) for name in GRID}
        for mean, projection, options, groups in ranked
    ]
    text = json.dumps({"samples": n_samples, "grid": rows}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Answer the samples once, curate with every combination, print the best ones."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="omnitrace-tiny")
    parser.add_argument("--signal", default=SIGNAL)
    parser.add_argument("--per-task", type=int, default=20)
    parser.add_argument("--levels", type=int, nargs="+", default=[3, 5])
    parser.add_argument(
        "--seed", default="tuning", help="any word except the seed of the reported split"
    )
    parser.add_argument("--output", type=Path, help="JSON of the whole grid")
    parser.add_argument("--show", type=int, default=8, help="how many of the best")
    args = parser.parse_args(argv)
    tracer, segmenter = load_tracer(args.model, [args.signal], "float32"), Segmenter(SpanOptions())
    cases = [
        case
        for tasks in GROUPS.values()
        for task in tasks
        for level in args.levels
        for case in answer(tracer, segmenter, task, level, args.seed, args.per_task)
    ]
    ranked: list[Ranked] = []
    for projection, options in settings():
        found = score(cases, args.signal, projection, options)
        ranked.append((float(np.mean(list(found.values()))), projection, options, found))
    ranked.sort(key=lambda row: -row[0])
    if args.output:
        write_grid(args.output, ranked, len(cases))
    default = score(cases, args.signal, "mass", CurationOptions())
    ranked[args.show :] = []
    rows = [*ranked, (float(np.mean(list(default.values()))), "mass", CurationOptions(), default)]
    print(f"{args.signal}: the best of the grid, and (last) the defaults; {len(cases)} samples")
    for mean, projection, options, found in rows:
        values = f"gamma {options.gamma:g}, coverage {options.coverage:g}, p_min {options.p_min:g}"
        groups = " ".join(f"{group} {value:.3f}" for group, value in found.items())
        print(f"{mean:.4f}  {projection:5}{options.pools:13}{values:40}{groups}")


if __name__ == "__main__":
    main()
