"""Measure curation: spans per second on one core, beside the slow reference in the same run.

Run from the repository's root: `OMP_NUM_THREADS=1 python -m benchmarks.curation`. Prints a table
and writes the raw numbers to benchmarks/out/curation.json. The folds are random, of realistic
shape. They are curated all at once (as in the pipeline) and one by one. Tagging the parts of speech
is a separate cost and not included.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from omnitrace_core.attribution.curation import (
    POS_WEIGHTS,
    CurationInput,
    curate,
    curate_many,
    unit_kinds,
)
from omnitrace_core.options import CurationOptions
from omnitrace_core.records import (
    Attribution,
    Fold,
    Modality,
    Segmentation,
    SourceUnit,
    Span,
    UnitKind,
)
from tests.core.attribution.curation_reference import reference_curate

OUTPUT = Path(__file__).parent / "out" / "curation.json"
TOKENS_PER_SPAN = 20


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of sample: the number of spans in its response, and its number of units by kind."""

    name: str
    n_spans: int
    kinds: dict[UnitKind, int]
    pools: Literal["joint", "per_modality"] = "joint"


VIDEO: dict[UnitKind, int] = {"sentence": 6, "video_bin": 32, "sound_bin": 32}
WORKLOADS = (
    Workload("short answer", 1, {"sentence": 4, "option": 4, "image": 2}),
    Workload("dialogue with images", 6, {"sentence": 20, "image": 4}),
    Workload("video with sound", 8, VIDEO),
    Workload("same, per modality", 8, VIDEO, "per_modality"),
    Workload("meeting of 300 s", 12, {"sentence": 2, "audio_bin": 300}),
)
MODALITY: dict[str, Modality] = {"image": "image", "audio_bin": "audio"}
MODALITY |= {"video_bin": "video", "sound_bin": "video"}

Case = tuple[Fold, tuple[SourceUnit, ...], Segmentation]
Curate = Callable[
    [Fold, Sequence[SourceUnit], Segmentation, CurationOptions], tuple[Attribution, ...]
]


def make_case(workload: Workload, rng: np.random.Generator) -> Case:
    """A random sample in which several tokens in a row rest on one unit, as in real responses."""
    kinds = [kind for kind, count in workload.kinds.items() for _ in range(count)]
    units = tuple(SourceUnit(j, k, MODALITY.get(k, "text"), 0) for j, k in enumerate(kinds))
    n_gen = workload.n_spans * TOKENS_PER_SPAN
    rows = rng.dirichlet(np.full(len(units) + 2, 0.3), size=n_gen)
    focus = np.repeat(rng.integers(len(units), size=-(-n_gen // 5)), 5)[:n_gen]
    rows[np.arange(n_gen), focus] += rng.random(n_gen)
    rows = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
    mass = rows[:, :-2]
    tags = tuple(str(tag) for tag in rng.choice(list(POS_WEIGHTS), size=n_gen))
    spans = tuple(
        Span(i, "", 0, 0, i * TOKENS_PER_SPAN, (i + 1) * TOKENS_PER_SPAN)
        for i in range(workload.n_spans)
    )
    return Fold(mass, mass / 4, rows[:, -2], rows[:, -1]), units, Segmentation(spans, tags)


def spans_per_second(function: Curate, cases: Sequence[Case], options: CurationOptions) -> float:
    """Spans curated per second of process time, sample by sample; the best of five passes."""
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        n_spans = sum(len(function(*case, options)) for case in cases)
        best = max(best, n_spans / (time.process_time() - start))
    return best


def spans_per_second_at_once(cases: Sequence[Case], options: CurationOptions) -> float:
    """Spans curated per second of process time, all cases in one call; the best of five."""
    prepared = [
        CurationInput(fold, unit_kinds([u.kind for u in units], [u.modality for u in units]), cut)
        for fold, units, cut in cases
    ]
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        n_spans = len(curate_many(prepared, options).supported)
        best = max(best, n_spans / (time.process_time() - start))
    return best


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description="Spans curated per second on one core.")
    parser.add_argument("--samples", type=int, default=500, help="samples per workload")
    n_samples = parser.parse_args().samples
    results = []
    heads = ("at once", "one by one", "reference", "ratio")
    print(f"{'workload':24}{'units':>7}{'spans':>7}" + "".join(f"{head:>12}" for head in heads))
    for workload in WORKLOADS:
        rng = np.random.default_rng(0)
        cases = [make_case(workload, rng) for _ in range(n_samples)]
        options = CurationOptions(pools=workload.pools)
        many = spans_per_second_at_once(cases, options)
        fast = spans_per_second(curate, cases, options)
        slow = spans_per_second(reference_curate, cases[: max(5, n_samples // 50)], options)
        n_units = sum(workload.kinds.values())
        print(
            f"{workload.name:24}{n_units:7}{workload.n_spans:7}"
            f"{many:12,.0f}{fast:12,.0f}{slow:12,.0f}{many / slow:11.1f}x"
        )
        rates = {"spans_per_s": many, "one_by_one_spans_per_s": fast, "reference_spans_per_s": slow}
        results.append(asdict(workload) | rates)
    OUTPUT.parent.mkdir(exist_ok=True)
    machine = {"machine": platform.machine(), "numpy": np.__version__}
    OUTPUT.write_text(json.dumps({**machine, "workloads": results}, indent=2) + "\n")
    print(f"raw numbers: {OUTPUT}")


if __name__ == "__main__":
    main()
