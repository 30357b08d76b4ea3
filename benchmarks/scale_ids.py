"""Measure finding repeated ids: time, memory and temporary disk per million rows."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.planning.input_shards import add_ids
from pipeline.planning.repeated_ids import RepeatedIds

_BATCH = 65_536


def measure_ids(rows: Sequence[int]) -> tuple[list[dict[str, Any]], str]:
    """Measure each number of rows in a separate process; return the figures and their table."""
    found = []
    for n_rows in rows:
        command = [sys.executable, "-m", "benchmarks.scale_ids", str(n_rows)]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found.append(json.loads(printed))
    lines = [
        f"{'rows':>12}{'hash s/1e6':>12}{'search s/1e6':>14}{'grew MiB':>10}{'disk MiB/1e6':>14}"
    ]
    for item in found:
        millions = item["rows"] / 1e6
        lines.append(
            f"{item['rows']:12}{item['hash_s'] / millions:12.2f}"
            f"{item['search_s'] / millions:14.2f}{item['grew_mib']:10.0f}"
            f"{item['spilled_bytes'] / 2**20 / millions:14.1f}"
        )
    return found, "\n".join(lines)


def main() -> None:
    """Hash so many ids, of which one in a thousand repeats another, and search for repeats."""
    n_rows = int(sys.argv[1])
    rng = np.random.default_rng(0)
    before = _peak_mib()
    hash_s = 0.0
    with RepeatedIds() as ids:
        for start in range(0, n_rows, _BATCH):
            numbers = np.arange(start, min(start + _BATCH, n_rows))
            repeated = rng.random(len(numbers)) < 1e-3
            numbers[repeated] = rng.integers(0, n_rows, int(repeated.sum()))
            column = pa.array([f"sample-{number:012d}" for number in numbers.tolist()])
            begun = time.perf_counter()
            add_ids(column, 0, start, ids)
            hash_s += time.perf_counter() - begun
        begun = time.perf_counter()
        places, _ = ids.repeats()
        figures = {
            "rows": n_rows,
            "hash_s": hash_s,
            "search_s": time.perf_counter() - begun,
            "repeats": len(places),
            "spilled_bytes": ids.spilled_bytes,
            "grew_mib": _peak_mib() - before,
        }
    print(json.dumps(figures))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
