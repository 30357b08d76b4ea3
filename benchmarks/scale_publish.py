"""Measure publishing chunk files of several sizes: the driver's time per file, one row to many MB.

Files are on the disk of the folder: the network of an object store would add to the times.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.scale_fake import do_chunk, path_of, write_input
from pipeline.planning.input_shards import list_input, scan_input
from pipeline.planning.plan import Plan, make_plan
from pipeline.run_folder.chunk_files import CHUNK_FILES
from pipeline.run_folder.publish import publish_shard
from pipeline.storage.folder import Folder

_CHUNKS = 16
_TABLES = ("samples", "spans", "traces")


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a chunk: its samples, and response tokens and source units of each sample."""

    samples: int
    tokens: int
    units: int

    @property
    def mass_mb(self) -> float:
        """Megabytes of masses and peaks of one signal, before compression."""
        return self.samples * self.tokens * self.units * 8 / 1e6


SIZES = (Size(1, 14, 3), Size(64, 128, 10), Size(64, 256, 40), Size(64, 512, 150))


def measure_publish(folder: Path, rounds: int = 3) -> tuple[list[dict[str, Any]], str]:
    """Measure each size; return the figures and their table."""
    found = []
    lines = [f"{'samples':>8}{'tokens':>8}{'units':>7}{'MB':>8}{'ms/file':>9}{'cpu ms':>8}"]
    for size in SIZES:
        here = folder / f"{size.samples}-{size.tokens}-{size.units}"
        write_input(f"{path_of(here)}/input", size.samples * _CHUNKS, 1)
        plan = make_plan(
            scan_input(list_input(f"{path_of(here)}/input")), "publish", size.samples, {}
        )
        timings = [_publish(plan, size, path_of(here / f"run-{i}")) for i in range(rounds)]
        wall_s, cpu_s = (median(item[which] for item in timings) / _CHUNKS for which in (0, 1))
        figures = {**asdict(size), "mass_mb": size.mass_mb, "part_mb": timings[0][2]}
        found.append({**figures, "wall_s": wall_s, "cpu_s": cpu_s})
        lines.append(
            f"{size.samples:8}{size.tokens:8}{size.units:7}{size.mass_mb:8.2f}"
            f"{1e3 * wall_s:9.1f}{1e3 * cpu_s:8.1f}"
        )
    return found, "\n".join(lines)


def _publish(plan: Plan, size: Size, run: str) -> tuple[float, float, float]:
    """Seconds and processor time of publishing a shard, and megabytes of a chunk file."""
    (shard,) = plan.shards
    for chunk in plan.chunks(shard):
        do_chunk(chunk, run, size.tokens, size.units)
    stored = sum(path.stat().st_size for path in Path(run, CHUNK_FILES).iterdir())
    begun, begun_cpu = time.perf_counter(), time.process_time()
    publish_shard(Folder(run), plan, shard, _TABLES)
    spent = time.perf_counter() - begun, time.process_time() - begun_cpu
    return (*spent, stored / _CHUNKS / 1e6)
