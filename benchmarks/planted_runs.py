"""Compare several models of the planted world: `python -m benchmarks.planted_runs A.json …`.

Reads a file of `benchmarks.planted --output` for each model and prints two tables in Markdown: the
share of exactly right responses by task, and the mean F1 of right sentences by group of tasks. A
cell is empty where a model has too few right sentences.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.planted_cases import GROUPS

# Rows of the second table, as `benchmarks.planted` names them.
METHODS = (
    "attboth mass joint",
    "attodds mass joint",
    "attmean mass joint",
    "attmean peak joint",
    "attnorm mass joint",
    "attgrads mass joint",
    "attraw mass joint",
    "leave one out",
    "order",
    "random unit",
    "all units",
)
# With fewer right sentences in a group, its cell is empty.
MIN_SENTENCES = 20

Result = Mapping[str, Any]


def accuracy_table(results: Mapping[str, Result]) -> list[str]:
    """A row per task, a column per model."""
    tasks = [task for group in GROUPS.values() for task in group]
    lines = [_row(["exact match", *results]), _row(["---"] * (len(results) + 1))]
    for task in tasks:
        shares = [result["answers"].get(task) for result in results.values()]
        if any(shares):
            cells = ["" if share is None else f"{share['exact']:.0%}" for share in shares]
            lines.append(_row([task, *cells]))
    return lines


def f1_table(results: Mapping[str, Result]) -> list[str]:
    """A row per method and model, a column per group of tasks."""
    lines = [_row(["mean F1", "model", *GROUPS]), _row(["---"] * (len(GROUPS) + 2))]
    for method in METHODS:
        for name, result in results.items():
            if method in result["right"]:
                cells = [_cell(result, method, group) for group in GROUPS]
                lines.append(_row([method, name, *cells]))
    return lines


def _cell(result: Result, method: str, group: str) -> str:
    answers = result["answers"]
    right = sum(
        answers[task]["sentences"] * answers[task]["right"]
        for task in GROUPS[group]
        if task in answers
    )
    if right < MIN_SENTENCES or group not in result["right"][method]:
        return ""
    mean, low, high = result["right"][method][group]
    return f"{mean:.2f} [{low:.2f} {high:.2f}]"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "results", type=Path, nargs="+", help="result files; the file's name is the model's name"
    )
    args = parser.parse_args(argv)
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in args.results}
    print("\n".join([*accuracy_table(results), "", *f1_table(results)]))


if __name__ == "__main__":
    main()
