"""Measure `omnitrace curate` from stored traces: spans per second of one core, with all files.

Run from the repository's root: `OMP_NUM_THREADS=1 python -m benchmarks.recuration`. The program
makes runs of random folds in a temporary folder (the workloads of benchmarks.curation), and curates
each again with other settings in this process. It compares the rate with that of curation alone, in
memory, in the same run. Raw numbers: benchmarks/out/recuration.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.curation import TOKENS_PER_SPAN, WORKLOADS, Case, Workload, make_case
from omnitrace_core.attribution.curation import CurationInput, curate_many, unit_kinds
from omnitrace_core.options import CurationOptions
from omnitrace_core.records import Segmentation, TokenTrace
from pipeline.driver.run import run
from pipeline.graph import plan_row
from pipeline.planning.plan import Chunk
from pipeline.recuration.plan import plan_recuration
from pipeline.recuration.recurate_run import run_recuration
from pipeline.run_folder.commit import CommittedChunk, commit_chunk
from pipeline.run_folder.planned_run import PlannedRun
from stages.arrow.chunk import StateRow, sample_structs, views, with_rows
from stages.arrow.codec import encode_trace, encode_units
from stages.arrow.columns import replace_fields
from stages.read_samples import read_samples
from stages.records.assemble import Provenance, assemble
from stages.records.curator import Curator
from tests.pipeline.made_runs import config_for, planned_run
from tests.stages.chunks import text_row, write_shard

OUTPUT = Path(__file__).parent / "out" / "recuration.json"
CHANGE = ["curation.gamma=1", "curation.coverage=0.7"]


def make_run(folder: Path, workload: Workload, cases: Sequence[Case]) -> PlannedRun:
    """Make a finished run whose traces hold these cases, in one shard and chunks of 32."""
    rows = [text_row(f"s{i}") for i in range(len(cases))]
    write_shard(folder / "input" / "a.parquet", rows)
    curation = {"pools": workload.pools}
    planned = planned_run(config_for(folder, run={"chunk_samples": 32}, curation=curation))

    def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        for chunk in chunks:
            table = read_samples(plan_row(chunk))
            chunk_cases = cases[chunk.first_row : chunk.first_row + chunk.n_rows]
            records = _records(sample_structs(table), chunk_cases, planned)
            yield CommittedChunk(
                **commit_chunk(with_rows(table, records), planned.folder).to_pylist()[0]
            )

    run(planned, execute)
    return planned


def _records(rows: pa.StructArray, cases: Sequence[Case], planned: PlannedRun) -> pa.StructArray:
    units = [encode_units(units) for _, units, _ in cases]
    traces = [encode_trace(_trace(case)) for case in cases]
    rows = replace_fields(rows, {"units": units, "trace": traces})

    def segment(row: StateRow) -> Segmentation:
        return cases[row.index][2]

    config = planned.config
    curator = Curator("curate", segment, config.curation, config.trace, config.units)
    provenance = Provenance(planned.identity.fingerprint, "benchmark")
    return assemble(rows, curator(views(rows)), config.trace, provenance)


def _trace(case: Case) -> TokenTrace:
    fold, _, segmentation = case
    n_gen = len(segmentation.pos)
    ids, ends = tuple(range(n_gen)), [4 * (t + 1) for t in range(n_gen)]
    places = tuple((end - 4, end) for end in ends)
    tokens = ("abcd",) * n_gen
    ones = np.zeros(n_gen, np.float32)
    return TokenTrace("abcd" * n_gen, ids, tokens, places, ones, "stop", 100, {"attmean": fold})


def in_memory(cases: Sequence[Case], options: CurationOptions) -> float:
    """Spans per second of curation alone."""
    prepared = [
        CurationInput(fold, unit_kinds([u.kind for u in units], [u.modality for u in units]), cut)
        for fold, units, cut in cases
    ]
    started = time.process_time()
    return len(curate_many(prepared, options).supported) / (time.process_time() - started)


def from_storage(planned: PlannedRun, folder: Path) -> float:
    """Spans per second of `omnitrace curate`, in this process."""
    recuration = plan_recuration(planned.folder.root, str(folder), CHANGE)
    started = time.process_time()
    return run_recuration(recuration, workers=1).n_spans / (time.process_time() - started)


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description="Spans curated again per second on one core.")
    parser.add_argument("--spans", type=int, default=6000, help="spans per workload")
    n_spans = parser.parse_args().spans
    results = []
    heads = ("curate", "in memory", "ratio", "KB/span")
    print(f"{'workload':24}{'units':>7}{'spans':>7}" + "".join(f"{head:>12}" for head in heads))
    for workload in WORKLOADS:
        rng = np.random.default_rng(0)
        cases = [make_case(workload, rng) for _ in range(n_spans // workload.n_spans)]
        with tempfile.TemporaryDirectory() as name:
            planned = make_run(Path(name), workload, cases)
            verb = max(from_storage(planned, Path(name, f"again{i}")) for i in range(3))
        alone = max(in_memory(cases, planned.config.curation) for _ in range(3))
        n_units = sum(workload.kinds.values())
        # Masses and peaks are stored; only masses are read here.
        stored_kb = 8 * n_units * TOKENS_PER_SPAN / 1000
        print(
            f"{workload.name:24}{n_units:7}{workload.n_spans:7}"
            f"{verb:12,.0f}{alone:12,.0f}{verb / alone:12.2f}{stored_kb:12.1f}"
        )
        rates = {"spans_per_s": verb, "in_memory_spans_per_s": alone, "stored_kb": stored_kb}
        results.append(asdict(workload) | rates)
    OUTPUT.parent.mkdir(exist_ok=True)
    machine = {"machine": platform.machine(), "numpy": np.__version__, "pyarrow": pa.__version__}
    OUTPUT.write_text(json.dumps({**machine, "workloads": results}, indent=2) + "\n")
    print(f"raw numbers: {OUTPUT}")


if __name__ == "__main__":
    main()
