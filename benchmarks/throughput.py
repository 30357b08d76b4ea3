"""Compare the full graph with the bare core loop: samples per second, with start-up separate.

Run from the repository's root: `python -m benchmarks.throughput`. The packaged tiny model answers
text samples of the planted world, in chunks of 64. 1, 2 and 4 processes (bare loop) or model actors
(graph) hold a model each, with the same number of torch threads. All results are written: the bare
loop writes one Parquet file per chunk; the graph writes chunk files, published tables and
manifests.

The rate is that of the steady state: from the moment when every actor has finished its first chunk
to the last chunk. Processor time is that of all processes. It shows what the graph adds where the
wall clock does not, because cores were idle or other work shared them. Start-up is everything
before the steady state: imports, Ray, models. While models load, the graph's first stages work
ahead, so much of their work is done before the steady state. The last ratio adds this work again,
as the stages without Ray measured it and as if all cores had been busy.

The stages process the texts and the curation of a chunk's samples together, while the bare loop
takes one sample at a time. So the graph can be faster than the loop; the cost of Ray alone is the
graph's ratio to the stages without Ray. The paths take turns in each round, and ratios are medians
of the ratios within a round, because a machine's speed changes by the minute. Raw numbers:
benchmarks/out/throughput.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.throughput_paths import PATHS, Measurement, PathName, Task, measure
from training.world.files import world_row
from training.world.tasks import make_sample

OUTPUT = Path(__file__).parent / "out" / "throughput.json"
TASKS = ("text_where", "text_who", "text_summary", "text_both")
TARGET, AIM = 0.90, 0.95
_SHARD_ROWS = 1024


def write_input(folder: Path, n_rows: int, tasks: Sequence[str] = TASKS) -> Path:
    """Write samples of the planted world and ingest them into shards."""
    from pipeline.commands.ingest import ingest

    folder.mkdir(parents=True)
    source = folder / "samples.jsonl"
    rows = (
        world_row(folder, make_sample(tasks[i % len(tasks)], 4, f"throughput-{i}"))
        for i in range(n_rows)
    )
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    ingest(str(source), str(folder / "input"), shard_rows=_SHARD_ROWS)
    return folder / "input"


def task_for(
    path: PathName, actors: int, threads: int, chunk: int, source: Path, output: Path
) -> Task:
    """The task of one measurement, with a separate run folder."""
    config: dict[str, Any] = {
        "input": {"path": str(source)},
        "output": {"path": str(output)},
        "run": {"chunk_samples": chunk},
        "model": {
            "path": "omnitrace-tiny",
            "device": "cpu",
            "gpus_per_replica": 0,
            "replicas": actors,
        },
        "decode": {"max_new_tokens": 48},
        "ray": {"trace_cpus": threads},
    }
    return Task(path, actors, threads, config)


def in_a_process(task: Task) -> Measurement:
    """Measure in a separate process, whose torch has as many threads as Ray gives an actor."""
    threads = {"OMP_NUM_THREADS": str(task.threads), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "benchmarks.throughput", "--task", json.dumps(asdict(task))]
    done = subprocess.run(
        command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True
    )
    return measurement_from(json.loads(done.stdout.splitlines()[-1]))


def measurement_from(content: dict[str, Any]) -> Measurement:
    """The measurement in a JSON object."""
    times = {name: tuple(content[name]) for name in ("chunk_s", "cpu_s")}
    return Measurement(**{**content, **times})


def table(measurements: dict[tuple[str, int], list[Measurement]], chunk: int) -> str:
    """The table: medians over the rounds, and the ratios to the bare loop."""
    lines = [
        f"{'path':8}{'actors':>7}{'samples/s':>11}{'of bare':>9}{'cpu ms':>9}{'of bare':>9}"
        f"{'ready s':>9}{'start s':>9}   chunks of {chunk}"
    ]
    for (path, actors), found in measurements.items():
        rate, cpu_ms = _median(found, "rate"), _median(found, "cpu_ms")
        bare = measurements.get(("core", actors))
        ratios = "" if bare is None else f"{_ratio(found, bare):9.2f}"
        line = f"{path:8}{actors:7}{rate:11.1f}{ratios:>9}{cpu_ms:9.1f}"
        line += "" if bare is None else f"{_median(bare, 'cpu_ms') / cpu_ms:9.2f}"
        lines.append(f"{line}{_median(found, 'ready_s'):9.1f}{_median(found, 'start_s'):9.1f}")
        parts = [f"{name} {ms:.2f}" for name, ms in found[0].stage_ms.items()]
        parts += [f"{name} {ms:.2f}" for name, ms in found[0].process_ms.items() if ms >= 0.05]
        lines += [f"        cpu ms per sample: {', '.join(parts)}"] if path != "core" else []
    return "\n".join(lines)


def _median(measurements: Sequence[Measurement], name: str) -> float:
    return statistics.median(getattr(measurement, name) for measurement in measurements)


def verdicts(measurements: dict[tuple[str, int], list[Measurement]]) -> list[str]:
    """For each number of actors, a line that says whether the target is met."""
    lines = []
    for (path, actors), found in measurements.items():
        if path == "graph" and ("core", actors) in measurements:
            stages = measurements.get(("stages", actors))
            ratio = _ratio(found, measurements["core", actors])
            met = "met" if ratio >= TARGET else "MISSED"
            note = f"{actors} actors: {ratio:.2f} of the bare loop; {TARGET:.2f} {met}, aim {AIM}"
            if stages is not None:
                core = measurements["core", actors]
                note += (
                    f"; {_ratio(found, stages):.2f} of the stages without Ray; "
                    f"{_ratio(found, core, stages):.2f} of the bare loop, "
                    f"{_ratio(found, stages, stages):.2f} of the stages with the work done ahead"
                )
            if actors > (os.cpu_count() or 1):
                note += f" ({actors} actors share {os.cpu_count()} cores)"
            lines.append(note)
    return lines


def cpu_ratio(graph: Sequence[Measurement], stages: Sequence[Measurement]) -> float:
    """Processor time of the stages without Ray over the graph's, all of its stages counted."""
    return statistics.median(
        other.cpu_ms / (one.cpu_ms + _ahead_ms(one, other))
        for one, other in zip(graph, stages, strict=True)
    )


def _ratio(
    graph: Sequence[Measurement],
    base: Sequence[Measurement],
    stages: Sequence[Measurement] | None = None,
) -> float:
    """Median over the rounds of the graph's rate over that of another path.

    stages: measurements of the stages without Ray, if the work that the graph did before the steady
    state is to be added.
    """
    ratios = []
    for number, (one, other) in enumerate(zip(graph, base, strict=True)):
        ratio = one.rate / other.rate
        if stages is not None:
            ratio *= one.cpu_ms / (one.cpu_ms + _ahead_ms(one, stages[number]))
        ratios.append(ratio)
    return statistics.median(ratios)


def _ahead_ms(graph: Measurement, stages: Measurement) -> float:
    """Processor time per sample of the first stages outside the graph's steady state."""
    names = ("read_samples", "DecodeMedia", "ChunkSpeech")
    within = sum(ms for title, ms in graph.process_ms.items() if any(n in title for n in names))
    return max(sum(stages.stage_ms[name] for name in names) - within, 0.0)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all paths, print the table and the targets, write the raw numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS))
    parser.add_argument("--chunks", type=int, default=30, help="per actor (30)")
    parser.add_argument("--chunk-samples", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="torch threads per actor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for input and runs (default: a temporary one)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.task:
        print(json.dumps(asdict(measure(Task(**json.loads(arguments.task))))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        measurements = _measure_all(arguments, Path(name))
    print(table(measurements, arguments.chunk_samples))
    print("\n".join(verdicts(measurements)))
    _store(arguments, measurements)


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


def _measure_all(
    arguments: argparse.Namespace, folder: Path
) -> dict[tuple[str, int], list[Measurement]]:
    measurements: dict[tuple[str, int], list[Measurement]] = {}
    for actors in arguments.actors:
        n_rows = actors * arguments.chunks * arguments.chunk_samples
        source = write_input(folder / f"for-{actors}", n_rows)
        for number in range(arguments.rounds):
            for path in arguments.paths:
                output = folder / f"{path}-{actors}-{number}"
                task = task_for(
                    path, actors, arguments.threads, arguments.chunk_samples, source, output
                )
                measurements.setdefault((path, actors), []).append(in_a_process(task))
                print(".", end="", file=sys.stderr, flush=True)
    return measurements


def _store(
    arguments: argparse.Namespace, measurements: dict[tuple[str, int], list[Measurement]]
) -> None:
    results = [
        {
            "path": path,
            "actors": actors,
            "rate": _median(found, "rate"),
            "cpu_ms": _median(found, "cpu_ms"),
            "rounds": [asdict(measurement) for measurement in found],
        }
        for (path, actors), found in measurements.items()
    ]
    content = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "threads": arguments.threads,
        "chunk_samples": arguments.chunk_samples,
        "chunks_per_actor": arguments.chunks,
        "results": results,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
