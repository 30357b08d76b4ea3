"""Measure what a run costs beside the model: planning, commits, resuming, publishing, reruns.

Run one section at a time from the repository's root:

    python -m benchmarks.scale paper --chunks 10000 100000   no Ray: processes make up records; the
                                                             run is killed in the middle, resumed,
                                                             and then rerun with nothing to do
    python -m benchmarks.scale graph --chunks 10000          the real graph with a fake tracer
    python -m benchmarks.scale s3 --shards 1000              requests to a real S3 server
    python -m benchmarks.scale ids --rows 1e6 1e7            finding repeated ids
    python -m benchmarks.scale publish                       publishing chunk files of several sizes

10^6 chunks took 101 minutes on two cores. With `--keep FOLDER`, a finished stage of `paper` is not
repeated, so that the measurement can be interrupted.

Chunks have one row, so that a million of them fit on a disk (a chunk file of one row is about 30 KB
while it waits for its shard) and take two hours. The measured costs grow with chunks and shards,
not with rows. Times depend on the disk of `--folder`. Raw numbers: benchmarks/out/scale-*.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.scale_fake import config_tree, path_of, write_input
from benchmarks.scale_ids import measure_ids
from benchmarks.scale_publish import measure_publish
from benchmarks.scale_s3 import measure_s3

OUT = Path(__file__).parent / "out"
RERUN_TARGET_S = 30.0


def driver(order: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a driver process; return the costs of its stages. It may be ordered to kill itself."""
    command = [sys.executable, "-m", "benchmarks.scale_driver", json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    killed = order.get("die_after") is not None and done.returncode == -signal.SIGKILL
    if done.returncode and not killed:
        raise RuntimeError(f"the driver ended with {done.returncode}:\n{done.stderr[-3000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]


def paper(chunks: int, shards: int, workers: int, folder: Path) -> dict[str, Any]:
    """Plan; run and be killed in the middle; resume; rerun with nothing to do."""
    here = path_of(folder)
    tree = config_tree(here, 1)
    order = {"config": tree, "workers": workers}
    kept = folder / "stages.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}

    def once(stage: str, do: Callable[[], Any]) -> Any:
        if stage not in found:
            found[stage] = do()
            kept.write_text(json.dumps(found))
        return found[stage]

    def make_input() -> float:
        begun = time.perf_counter()
        write_input(f"{here}/input", chunks, shards)
        return time.perf_counter() - begun

    orders = {
        "plan": {**order, "what": "plan"},
        "killed": {**order, "what": "run", "die_after": chunks // 2},
        "resumed": {**order, "what": "run"},
    }
    return {
        "chunks": chunks,
        "shards": shards,
        "workers": workers,
        "made_input_s": once("made_input_s", make_input),
        "stages": {name: once(name, partial(driver, what)) for name, what in orders.items()},
        "noop_s": once("noop_s", lambda: [noop(folder, tree) for _ in range(3)]),
    }


def noop(folder: Path, tree: dict[str, Any]) -> float:
    """Wall time of the command on a finished run."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    begun = time.perf_counter()
    command = [sys.executable, "-m", "pipeline", "run", str(config)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    wall_s = time.perf_counter() - begun
    if "nothing to do" not in printed:
        raise RuntimeError(f"the run was not finished:\n{printed}")
    return wall_s


def paper_table(results: Sequence[dict[str, Any]]) -> str:
    """A line per size and stage, then how memory grows with the number of chunks."""
    lines = [
        f"{'chunks':>9}{'shards':>8}  {'stage':16}{'wall s':>9}{'ms/chunk':>10}"
        f"{'cpu s':>9}{'peak MiB':>10}{'grew MiB':>10}  requests of the driver"
    ]
    for result in results:
        for driver_name, stages in result["stages"].items():
            for stage in stages:
                if driver_name != "plan" and stage["stage"] == "plan":
                    continue
                same = driver_name == stage["stage"]
                name = driver_name if same else f"{driver_name}: {stage['stage']}"
                n = max(stage["rss_mib"][-1][0], 1)
                grew = stage["rss_mib"][-1][1] - stage["rss_mib"][0][1]
                requests = ", ".join(f"{n} {kind}" for kind, n in sorted(stage["requests"].items()))
                lines.append(
                    f"{result['chunks']:9}{result['shards']:8}  {name:16}{stage['wall_s']:9.1f}"
                    f"{1e3 * stage['wall_s'] / n:10.2f}{stage['cpu_s']:9.1f}"
                    f"{stage['peak_mib']:10.0f}{grew:10.0f}  {requests}"
                )
        least = min(result["noop_s"])
        met = "met" if least < RERUN_TARGET_S else "MISSED"
        lines.append(
            f"{result['chunks']:9}{result['shards']:8}  {'nothing to do':16}{least:9.1f}"
            f"{'':39}  under {RERUN_TARGET_S:.0f} s: {met}"
        )
    if len(results) > 1:
        lines.append(_growth(results[0], results[-1]))
    return "\n".join(lines)


def _growth(small: dict[str, Any], large: dict[str, Any]) -> str:
    peaks = [result["stages"]["resumed"][-1]["peak_mib"] for result in (small, large)]
    more = large["chunks"] / small["chunks"]
    return f"{more:g} times the chunks: the driver's peak memory x {peaks[1] / peaks[0]:.2f}"


def graph(chunks: int, shards: int, window: int, folder: Path) -> dict[str, Any]:
    """Run chunks of one row through Ray; the figures include start-up."""
    here = path_of(folder)
    write_input(f"{here}/input", chunks, shards)
    tree = config_tree(here, 1, run={"chunk_samples": 1, "window_chunks": window})
    stages = driver({"what": "graph", "config": tree})
    return {"chunks": chunks, "shards": shards, "window_chunks": window, "stages": stages}


def graph_table(result: dict[str, Any]) -> str:
    """Chunks per second, and the driver's memory after each tenth of the chunks."""
    run = next(stage for stage in result["stages"] if stage["stage"] == "run")
    samples = run["rss_mib"][1:]
    tenths = [samples[min(len(samples) * i // 10, len(samples) - 1)] for i in range(11)]
    rate = result["chunks"] / run["wall_s"]
    return "\n".join(
        [
            f"{result['chunks']} chunks in windows of {result['window_chunks']}: "
            f"{rate:.1f} chunks/s, start-up included",
            "driver's memory, MiB: " + ", ".join(f"{mib:.0f} at {n}" for n, mib in tenths),
            f"the second half over the first: x {_half_ratio(samples):.2f}",
        ]
    )


def _half_ratio(samples: Sequence[Sequence[float]]) -> float:
    """Peak memory in the second half of the run over that in the first half."""
    half = max(len(samples) // 2, 1)
    return max(mib for _, mib in samples[half:] or samples) / max(mib for _, mib in samples[:half])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one section, print its table, write its raw numbers."""
    arguments = _arguments(argv)
    section = arguments.section
    with _folder(arguments.folder, arguments.keep) as folder:
        if section == "paper":
            found: Any = [
                paper(
                    n,
                    arguments.shards or max(n // 100, 1),
                    arguments.workers,
                    _size_folder(folder, n),
                )
                for n in arguments.chunks
            ]
            print(paper_table(found))
        elif section == "graph":
            (chunks,) = arguments.chunks
            shards = arguments.shards or max(chunks // 100, 1)
            found = graph(chunks, shards, arguments.window, folder)
            print(graph_table(found))
        elif section == "s3":
            found, table = measure_s3(folder, arguments.shards or 1000)
            print(table)
        elif section == "publish":
            found, table = measure_publish(folder)
            print(table)
        else:
            found, table = measure_ids([int(float(n)) for n in arguments.rows])
            print(table)
    _store(arguments.output or OUT / f"scale-{section}.json", found)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("section", choices=["paper", "graph", "s3", "ids", "publish"])
    parser.add_argument("--chunks", type=int, nargs="+", default=[10_000])
    parser.add_argument("--shards", type=int, help="default: chunks / 100; s3: 1,000")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="paper: processes")
    parser.add_argument("--window", type=int, default=2000, help="graph: run.window_chunks")
    parser.add_argument("--rows", nargs="+", default=["1e6", "1e7"], help="ids: rows")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--keep", type=Path, help="paper: a folder to keep and resume in")
    parser.add_argument("--output", type=Path)
    return parser.parse_args(argv)


@contextmanager
def _folder(parent: Path | None, keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(dir=parent, prefix="omnitrace-scale-") as name:
        yield Path(name)


def _size_folder(folder: Path, chunks: int) -> Path:
    """The folder of one size; deletes those of other sizes."""
    own = folder / str(chunks)
    for other in folder.iterdir():
        if other != own:
            shutil.rmtree(other)
    own.mkdir(exist_ok=True)
    return own


def _store(output: Path, found: Any) -> None:
    content = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "results": found,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
