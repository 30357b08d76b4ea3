"""The full graph beside the bare core loop: samples per second, with the start-up told apart.

Run from the repository's root: `python -m benchmarks.throughput`. The packaged tiny model answers
text samples of the planted world, in chunks of 64, in 1, 2 and 4 processes that hold a model (bare
loop) or model actors (graph), each with as many torch threads. All that is made is written: by the
bare loop one Parquet file per chunk, by the graph parts, published tables and manifests.

The rate is that of the steady state: from the moment when every actor has had its first chunk to
the last chunk. Processor time is that of all processes, so it tells what the graph adds where the
wall clock does not, because cores were idle, or lies, because others were at work. Start-up is
everything before: imports, Ray, models. While models load, the graph's first stages work ahead, so
that much of what they do lies before the stretch; the last ratio adds it again, as the stages
without Ray measured it, as if all cores had been taken.

The stages do the texts and the curation of a chunk's samples together, the bare loop sample by
sample; so the graph can be ahead of it, and what Ray alone costs is its ratio to the stages without
Ray. Rounds take turns, ratios are medians of those within a round: a machine's speed changes by the
minute. Raw numbers: benchmarks/out/throughput.json.
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

from benchmarks.throughput_paths import PATHS, Course, PathName, Task, measure
from training.world.files import world_row
from training.world.tasks import make_sample

OUTPUT = Path(__file__).parent / "out" / "throughput.json"
TASKS = ("text_where", "text_who", "text_summary", "text_both")
TARGET, AIM = 0.90, 0.95
_SHARD_ROWS = 1024


def write_input(folder: Path, n_rows: int, tasks: Sequence[str] = TASKS) -> Path:
    """Samples of the planted world as ingested shards."""
    from pipeline.commands.ingest import ingest

    folder.mkdir(parents=True)
    source = folder / "samples.jsonl"
    made = (
        world_row(folder, make_sample(tasks[i % len(tasks)], 4, f"throughput-{i}"))
        for i in range(n_rows)
    )
    source.write_text("".join(f"{json.dumps(row)}\n" for row in made))
    ingest(str(source), str(folder / "input"), shard_rows=_SHARD_ROWS)
    return folder / "input"


def task_for(
    path: PathName, actors: int, threads: int, chunk: int, source: Path, output: Path
) -> Task:
    """One measurement, with a run folder of its own."""
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


def in_a_process(task: Task) -> Course:
    """Measure in a process of its own, whose torch has the threads that Ray gives an actor."""
    threads = {"OMP_NUM_THREADS": str(task.threads), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "benchmarks.throughput", "--task", json.dumps(asdict(task))]
    done = subprocess.run(
        command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True
    )
    return course(json.loads(done.stdout.splitlines()[-1]))


def course(told: dict[str, Any]) -> Course:
    return Course(**{**told, "chunk_s": tuple(told["chunk_s"]), "cpu_s": tuple(told["cpu_s"])})


def table(courses: dict[tuple[str, int], list[Course]], chunk: int) -> str:
    """Medians over the rounds, and the ratios to the bare loop."""
    lines = [
        f"{'path':8}{'actors':>7}{'samples/s':>11}{'of bare':>9}{'cpu ms':>9}{'of bare':>9}"
        f"{'ready s':>9}{'start s':>9}   chunks of {chunk}"
    ]
    for (path, actors), found in courses.items():
        rate, cpu_ms = _median(found, "rate"), _median(found, "cpu_ms")
        bare = courses.get(("core", actors))
        ratios = "" if bare is None else f"{_ratio(found, bare):9.2f}"
        line = f"{path:8}{actors:7}{rate:11.1f}{ratios:>9}{cpu_ms:9.1f}"
        line += "" if bare is None else f"{_median(bare, 'cpu_ms') / cpu_ms:9.2f}"
        lines.append(f"{line}{_median(found, 'ready_s'):9.1f}{_median(found, 'start_s'):9.1f}")
        spent = [f"{name} {ms:.2f}" for name, ms in found[0].stage_ms.items()]
        spent += [f"{name} {ms:.2f}" for name, ms in found[0].process_ms.items() if ms >= 0.05]
        lines += [f"        cpu ms per sample: {', '.join(spent)}"] if path != "core" else []
    return "\n".join(lines)


def _median(courses: Sequence[Course], name: str) -> float:
    return statistics.median(getattr(course, name) for course in courses)


def verdicts(courses: dict[tuple[str, int], list[Course]]) -> list[str]:
    """The target per number of actors."""
    told = []
    for (path, actors), found in courses.items():
        if path == "graph" and ("core", actors) in courses:
            stages = courses.get(("stages", actors))
            ratio = _ratio(found, courses["core", actors])
            met = "met" if ratio >= TARGET else "MISSED"
            note = f"{actors} actors: {ratio:.2f} of the bare loop; {TARGET:.2f} {met}, aim {AIM}"
            if stages is not None:
                core = courses["core", actors]
                note += (
                    f"; {_ratio(found, stages):.2f} of the stages without Ray; "
                    f"{_ratio(found, core, stages):.2f} of the bare loop, "
                    f"{_ratio(found, stages, stages):.2f} of the stages with what was done ahead"
                )
            if actors > (os.cpu_count() or 1):
                note += f" ({actors} actors share {os.cpu_count()} cores)"
            told.append(note)
    return told


def cpu_ratio(graph: Sequence[Course], stages: Sequence[Course]) -> float:
    """Processor time of the stages without Ray over the graph's, all of its stages counted."""
    return statistics.median(
        other.cpu_ms / (one.cpu_ms + _ahead_ms(one, other))
        for one, other in zip(graph, stages, strict=True)
    )


def _ratio(
    graph: Sequence[Course], base: Sequence[Course], stages: Sequence[Course] | None = None
) -> float:
    """Median over the rounds of the graph's rate to that of another path.

    stages: by which the processor time of what the graph did ahead of its stretch is told.
    """
    ratios = []
    for number, (one, other) in enumerate(zip(graph, base, strict=True)):
        ratio = one.rate / other.rate
        if stages is not None:
            ratio *= one.cpu_ms / (one.cpu_ms + _ahead_ms(one, stages[number]))
        ratios.append(ratio)
    return statistics.median(ratios)


def _ahead_ms(graph: Course, stages: Course) -> float:
    """Processor time per sample of the first stages that the graph's stretch does not hold."""
    names = ("read_samples", "DecodeMedia", "ChunkAudio")
    within = sum(ms for told, ms in graph.process_ms.items() if any(name in told for name in names))
    return max(sum(stages.stage_ms[name] for name in names) - within, 0.0)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS))
    parser.add_argument("--chunks", type=int, default=30, help="per actor (30)")
    parser.add_argument("--chunk-samples", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="torch threads per actor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for input and runs (a temporary one)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.task:
        print(json.dumps(asdict(measure(Task(**json.loads(arguments.task))))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        courses = _measure_all(arguments, Path(name))
    print(table(courses, arguments.chunk_samples))
    print("\n".join(verdicts(courses)))
    _store(arguments, courses)


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


def _measure_all(
    arguments: argparse.Namespace, folder: Path
) -> dict[tuple[str, int], list[Course]]:
    courses: dict[tuple[str, int], list[Course]] = {}
    for actors in arguments.actors:
        n_rows = actors * arguments.chunks * arguments.chunk_samples
        source = write_input(folder / f"for-{actors}", n_rows)
        for number in range(arguments.rounds):
            for path in arguments.paths:
                output = folder / f"{path}-{actors}-{number}"
                task = task_for(
                    path, actors, arguments.threads, arguments.chunk_samples, source, output
                )
                courses.setdefault((path, actors), []).append(in_a_process(task))
                print(".", end="", file=sys.stderr, flush=True)
    return courses


def _store(arguments: argparse.Namespace, courses: dict[tuple[str, int], list[Course]]) -> None:
    results = [
        {
            "path": path,
            "actors": actors,
            "rate": _median(found, "rate"),
            "cpu_ms": _median(found, "cpu_ms"),
            "rounds": [asdict(course) for course in found],
        }
        for (path, actors), found in courses.items()
    ]
    told = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "threads": arguments.threads,
        "chunk_samples": arguments.chunk_samples,
        "chunks_per_actor": arguments.chunks,
        "results": results,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
