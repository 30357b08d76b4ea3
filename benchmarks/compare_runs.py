"""Compare the published tables of two runs value by value, to check that code changes keep them.

    python -m benchmarks.compare_runs RUN_A RUN_B

RUN_A and RUN_B are folders of finished runs over the same input. Rows are matched by their order in
the sorted files, and floats must be equal to the bit. `timings` and `code_version` are not
compared, because they change with every run. Exit code 0: equal; 1: there are differences, which
are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TABLES = ("samples", "spans", "traces", "heatmaps")
# Columns that depend on the clock or on the version of the code.
CHANGING = ("timings", "code_version")
MOST_SHOWN = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line per table and the differences; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_a", type=Path)
    parser.add_argument("run_b", type=Path)
    arguments = parser.parse_args(argv)
    differences: list[str] = []
    for table in TABLES:
        differences += compare_tables(table, arguments.run_a / table, arguments.run_b / table)
    for line in differences:
        print(f"  {line}")
    print("equal" if not differences else f"{len(differences)} differences")
    return 1 if differences else 0


def compare_tables(name: str, folder_a: Path, folder_b: Path) -> list[str]:
    """Differences between two tables of one name, as lines; prints which columns were compared."""
    a, b = _read(folder_a), _read(folder_b)
    if a is None and b is None:
        print(f"{name}: in neither run")
        return []
    if a is None or b is None:
        return [f"{name}: only in {folder_a if b is None else folder_b}"]
    if a.schema != b.schema:
        return [f"{name}: the schemas differ: {a.schema} and {b.schema}"]
    if len(a) != len(b):
        return [f"{name}: {len(a)} and {len(b)} rows"]
    columns = [column for column in a.column_names if column not in CHANGING]
    print(f"{name}: {len(a)} rows, {len(columns)} columns: {', '.join(columns)}")
    found = []
    for column in columns:
        for row, (x, y) in enumerate(zip(a[column], b[column], strict=True)):
            # NaN is not equal to itself, but its text is; the text of a float has all its digits.
            if x != y and repr(x.as_py()) != repr(y.as_py()):
                found.append(f"{name}.{column}, row {row}: {_clip(x)} and {_clip(y)}")
    return found[:MOST_SHOWN] + (
        [f"{name}: {len(found)} values"] if len(found) > MOST_SHOWN else []
    )


def _read(folder: Path) -> pa.Table | None:
    files = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]) if files else None


def _clip(value: pa.Scalar) -> str:
    text = repr(value.as_py())
    return text if len(text) <= 200 else f"{text[:200]}..."


if __name__ == "__main__":
    sys.exit(main())
