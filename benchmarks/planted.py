"""How well signals find evidence that is known exactly: `python -m benchmarks.planted`.

The model that was trained in the planted world answers held-out samples of it, and is traced. The
program prints the accuracy of each task, and the F1 of chosen against planted units for every
signal, projection and pooling. Beside these it prints baselines that do not look into the model
(one random unit, as a mean over all units; all units; the k-th unit for the k-th sentence) and the
causal reference, which leaves one unit out at a time. The tables count correctly answered sentences
only; the JSON also has the scores over all sentences, where a wrong answer scores 0. Intervals are
95 % bootstrap intervals over samples.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.planted_cases import GROUPS, Case, answer
from benchmarks.planted_reference import leave_one_out
from omnitrace_core.attribution.curation import POS_WEIGHTS, Projection, curate
from omnitrace_core.attribution.scores import Fact, bootstrap, f1
from omnitrace_core.options import (
    CurationOptions,
    DecodeOptions,
    ModelOptions,
    SpanOptions,
    TraceOptions,
)
from omnitrace_core.records import ReadySample, TokenTrace
from omnitrace_core.text.spans import Segmenter
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.signals import SIGNALS
from omnitrace_core.units.cut import candidate_units

PROJECTIONS: tuple[Projection, ...] = ("mass", "peak")
POOLS: tuple[Literal["joint", "per_modality"], ...] = ("joint", "per_modality")
# The signal of configs/quickstart.yaml.
SIGNAL = "attboth"
# What `benchmarks.planted_tuning` chose on a separate split: the settings of
# configs/quickstart.yaml, which are the defaults.
CHOSEN = CurationOptions()
CHOSEN_METHOD = f"{SIGNAL} mass joint"
# Methods that do not look into the model.
BASELINES = ("random unit", "all units", "order")
# The reference names a unit if leaving it out costs this share of the largest cost of a unit.
CAUSAL_SHARE = 0.3
# Parts of speech of content words, for the comparison of precisions.
CONTENT = frozenset(pos for pos, weight in POS_WEIGHTS.items() if weight >= 0.8)

# (evidence of a planted sentence, its place among the planted sentences, its span) -> F1
Method = Callable[[Sequence[Fact], int, int], float]
# By group or task: mean, lower and upper end of the interval.
Intervals = dict[str, list[float]]


class Board:
    """Scores by method and task, a list per sample.

    right: scores of correctly answered sentences; all: scores of every sentence, 0 for a wrong one.
    """

    def __init__(self) -> None:
        self.right: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
        self.all: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))

    def add(self, name: str, case: Case, method: Method) -> None:
        """Score one case by one method."""
        scores = [
            None if span is None else method(evidence, place, span)
            for place, (evidence, span) in enumerate(zip(case.evidence, case.spans, strict=True))
        ]
        self.right[name][case.sample.task].append([s for s in scores if s is not None])
        self.all[name][case.sample.task].append([s or 0.0 for s in scores])


def main(argv: Sequence[str] | None = None) -> None:
    """Answer, trace and score the samples; print the scores."""
    args = _parse(argv)
    tracer = load_tracer(args.model, dict.fromkeys([SIGNAL, *args.signals]), "float32")
    half = load_tracer(args.model, [SIGNAL], "bfloat16") if args.precision else None
    segmenter = Segmenter(SpanOptions())
    board = Board()
    answers: dict[str, dict[str, float]] = {}
    top_units: list[float] = []
    same: list[float] = []
    for task in args.tasks:
        planted = right = exact = 0
        place = (task, args.level, args.seed, args.per_task)
        for case in answer(tracer, segmenter, *place, files=args.files):
            planted += len(case.spans)
            right += sum(span is not None for span in case.spans)
            exact += case.trace.response == case.sample.response
            _score_baselines(board, case)
            _score_signals(board, case)
            _score_preset(board, case)
            top_units += _score_reference(board, tracer, case)
            if half is not None:
                same += same_unit(half, case, SIGNAL)
        answers[task] = {"samples": args.per_task, "exact": exact / args.per_task}
        answers[task] |= {"sentences": planted, "right": right / planted}
        print(f"{task:15}{exact / args.per_task:7.1%} exact {right / planted:7.1%} of sentences")
        sys.stdout.flush()
    arguments = {name: str(value) for name, value in vars(args).items()}
    results = {"arguments": arguments, "answers": answers, **_report(board, top_units)}
    if half is not None:
        results["bfloat16"] = {"tokens": len(same), "same": _mean(same)}
        print(f"bfloat16 and float32 choose one unit in {_mean(same):.2%} of {len(same)} tokens")
    if args.output:
        text = json.dumps(_without_nan(results), indent=1, allow_nan=False)
        args.output.write_text(text + "\n", encoding="utf-8")


def _report(board: Board, top_units: Sequence[float]) -> dict[str, object]:
    """Print the scores of all tasks; return them for the JSON."""
    scores = {
        "right": _table(board.right, "correctly answered sentences"),
        "all": _summary(board.all),
    }
    above_baselines = {name: apart(scores[name]) for name in ("right", "all")}
    for name, of_group in above_baselines.items():
        groups = ", ".join(
            f"{group} {'yes' if above else 'NO'}" for group, above in of_group.items()
        )
        print(f"{CHOSEN_METHOD} above every baseline, intervals apart ({name}): {groups}")
    print(
        f"leaving one unit out names the planted unit first in {_mean(top_units):.1%} of "
        f"{len(top_units)} right sentences with one piece of evidence"
    )
    causal_top = {"sentences": len(top_units), "share": _mean(top_units)}
    return {**scores, "apart": above_baselines, "causal_top": causal_top}


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="omnitrace-tiny")
    parser.add_argument("--signals", nargs="+", default=list(SIGNALS))
    parser.add_argument(
        "--tasks", nargs="+", default=[t for group in GROUPS.values() for t in group]
    )
    parser.add_argument("--per-task", type=int, default=60)
    parser.add_argument(
        "--level",
        type=int,
        default=4,
        help="items per sample; training had 2-6 (pictures: at most 4)",
    )
    parser.add_argument("--seed", default="report", help="any word; each one is a different split")
    parser.add_argument("--files", action="store_true", help="media as files, through decoders")
    parser.add_argument("--precision", action="store_true", help="compare bfloat16 with float32")
    parser.add_argument("--output", type=Path, help="JSON of all that was measured")
    return parser.parse_args(argv)


def load_tracer(
    model: str, signals: Iterable[str], dtype: Literal["float32", "bfloat16"]
) -> BatchTracer:
    """The model on a CPU; one replay reads all signals."""
    return BatchTracer(
        ModelOptions(path=model, device="cpu", dtype=dtype),
        DecodeOptions(max_new_tokens=64),
        TraceOptions(signals=tuple(signals)),
    )


def chosen(
    case: Case, signal: str, projection: Projection, options: CurationOptions
) -> list[set[int]]:
    """The units that curation with these options names, for each span of the response."""
    fold = case.trace.folds[signal]
    found = curate(fold, case.ready.units, case.segmentation, options, projection)
    return [{source.unit.unit_id for source in span.sources} for span in found]


def same_unit(half: BatchTracer, case: Case, signal: str) -> list[float]:
    """For each content token, 1 if its largest mass is on the same unit in both precisions."""
    (known,) = half.trace([_with_response(case)])
    if not isinstance(known, TokenTrace):
        raise known
    units = candidate_units(case.ready.units, "exclude")
    pairs = (case.trace.folds[signal].mass[:, units], known.folds[signal].mass[:, units])
    here, there = (mass.argmax(axis=1) for mass in pairs)
    return [
        float(here[t] == there[t]) for t, pos in enumerate(case.segmentation.pos) if pos in CONTENT
    ]


def _with_response(case: Case) -> ReadySample:
    sample = replace(case.ready.sample, response_token_ids=case.trace.token_ids)
    return replace(case.ready, sample=sample)


def _score_baselines(board: Board, case: Case) -> None:
    units = case.candidates
    board.add("random unit", case, lambda evidence, place, span: _mean_f1(units, evidence))
    board.add("all units", case, lambda evidence, place, span: f1(units, evidence))
    board.add(
        "order",
        case,
        lambda evidence, place, span: f1({units[min(place, len(units) - 1)]}, evidence),
    )


def _score_signals(board: Board, case: Case) -> None:
    for signal in case.trace.folds:
        for projection in PROJECTIONS:
            for pools in POOLS:
                sources = chosen(case, signal, projection, CurationOptions(pools=pools))
                board.add(f"{signal} {projection} {pools}", case, _f1_of(sources))


def _f1_of(sources: Sequence[set[int]]) -> Method:
    """Scores the units that a method names for each span."""
    return lambda evidence, place, span: f1(sources[span], evidence)


def _score_preset(board: Board, case: Case) -> None:
    for signal in case.trace.folds:
        sources = chosen(case, signal, "mass", CurationOptions(preset="paper"))
        board.add(f"{signal} as in the paper", case, _f1_of(sources))


def _score_reference(board: Board, tracer: BatchTracer, case: Case) -> list[float]:
    """Also returns, for each right sentence with one planted unit, 1 if that unit costs most."""
    if not case.trace.token_ids:
        board.add("leave one out", case, lambda evidence, place, span: 0.0)
        return []
    losses = leave_one_out(tracer.backend, case.ready, case.trace.token_ids)
    sources, top = [], []
    for span in case.segmentation.spans:
        drop = losses[:, span.token_start : span.token_end].sum(axis=1)
        top.append(max(case.candidates, key=lambda unit: drop[unit]))
        enough = CAUSAL_SHARE * drop[top[-1]]
        sources.append({unit for unit in case.candidates if drop[unit] > enough})
    board.add("leave one out", case, _f1_of(sources))
    pairs = zip(case.evidence, case.spans, strict=True)
    return [
        float(top[span] in evidence[0])
        for evidence, span in pairs
        if span is not None and len(evidence) == 1 and len(evidence[0]) == 1
    ]


def apart(found: dict[str, Intervals]) -> dict[str, bool]:
    """By group, whether the chosen method's interval lies above that of every baseline."""
    best = found[CHOSEN_METHOD]
    return {
        group: best[group][1] > max(found[name][group][2] for name in BASELINES)
        for group in GROUPS
        if group in best
    }


def _without_nan(value: object) -> object:
    """Replace NaN, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _mean_f1(units: Sequence[int], evidence: Sequence[Fact]) -> float:
    return float(np.mean([f1({unit}, evidence) for unit in units]))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _summary(scores: dict[str, dict[str, list[list[float]]]]) -> dict[str, Intervals]:
    """By method, for each group and each task: mean and interval."""
    found: dict[str, Intervals] = {}
    for method, by_task in scores.items():
        groups = {name: [t for t in tasks if t in by_task] for name, tasks in GROUPS.items()}
        groups |= {task: [task] for task in by_task}
        found[method] = {
            name: [round(number, 4) for number in bootstrap([s for t in tasks for s in by_task[t]])]
            for name, tasks in groups.items()
            if tasks
        }
    return found


def _table(scores: dict[str, dict[str, list[list[float]]]], of: str) -> dict[str, Intervals]:
    """The summary; prints it by group."""
    found = _summary(scores)
    shown = [group for group in GROUPS if any(group in row for row in found.values())]
    print(f"\nF1 on {of}\n{'':32}" + "".join(f"{group:^17}" for group in shown))
    for method, row in found.items():
        cells = (row.get(group, [float("nan")] * 3) for group in shown)
        print(f"{method:32}" + "".join(f" {m:.2f} [{lo:.2f} {hi:.2f}]" for m, lo, hi in cells))
    print()
    return found


if __name__ == "__main__":
    main()
