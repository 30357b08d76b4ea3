"""Compare what a run has published with what its input was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.run_folder.lease_file import LEASE, read_lease
from pipeline.run_folder.verdict import read_verdict
from pipeline.storage.folder import PARTIAL, Folder
from tests.pipeline.storm.corpus import ExpectedRow, Shards, expected_rows

TABLES = ("samples", "spans", "traces")
UNREADABLE = (OSError, pa.ArrowException, ValueError)  # raised by `take_snapshot`
_SPANS_PER_ROW = 2  # of the worker
_COLUMNS = {
    "samples": ["row_key", "sample_id", "error_code", "response"],
    "spans": ["row_key", "text", "span_index"],
    "traces": ["row_key"],
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong.

    kind: of rows "lost", "doubled", "wrong" (another text or code) or "extra" (not in the input).
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What lies in a run's folder.

    files: number of rows of each published file. rows: of each table. named: number of rows of each
    file that a manifest names. names: of all files.
    """

    files: dict[str, int]
    rows: dict[str, list[dict[str, Any]]]
    named: dict[str, int]
    names: list[str]
    verdict: dict[str, Any] | None


def lease_state(folder: Folder) -> tuple[int, bool] | None:
    """Epoch of the lease's last holder, and whether it has released the lease; None: no lease."""
    found = read_lease(folder)
    return None if found is None else (found[0].epoch, found[0].released)


def take_snapshot(folder: Folder) -> Snapshot:
    """Read a run's folder, which nobody else changes meanwhile.

    Raises: OSError, pa.ArrowException, ValueError: it was changed after all.
    """
    names = folder.tree("")
    files: dict[str, int] = {}
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    named: dict[str, int] = {}
    for name in names:
        place, _, file = name.partition("/")
        if place in TABLES and file.endswith(".parquet"):
            content = pa.BufferReader(folder.read(name))
            found = pq.read_table(content, columns=_COLUMNS[place]).to_pylist()
            files[name] = len(found)
            rows[place] += found
        elif place == "_manifests" and file.endswith(".json"):
            named.update(json.loads(folder.read(name))["files"])
    return Snapshot(files, rows, named, names, read_verdict(folder))


def row_problems(
    found: Snapshot, candidates: Iterable[Shards], failure: str | None = None
) -> list[Problem]:
    """What is wrong with the rows, if they are those of none of the candidates for the input.

    failure: code that rows which should be ok may have instead. Of several candidates, the problems
    with the one that fits best.
    """
    best: list[Problem] | None = None
    for shards in candidates:
        problems = _problems_with(found, expected_rows(shards), failure)
        if not problems:
            return []
        if best is None or len(problems) < len(best):
            best = problems
    assert best is not None, "no candidates"
    return best


def _problems_with(
    found: Snapshot, expected: Mapping[str, ExpectedRow], failure: str | None
) -> list[Problem]:
    samples = Counter(row["row_key"] for row in found.rows["samples"])
    problems = [Problem("lost", key) for key in expected if key not in samples]
    problems += [Problem("doubled", f"{key} {n} times") for key, n in samples.items() if n > 1]
    extra = samples.keys() - expected.keys()
    problems += [Problem("extra", f"{key} is not in the input") for key in extra]
    for row in found.rows["samples"]:
        wanted = expected.get(row["row_key"])
        got = ExpectedRow(row["sample_id"], row["error_code"], row["response"])
        if wanted is not None and got != wanted and got != _failed(wanted, failure):
            problems.append(Problem("wrong", f"{row['row_key']} is {got}, not {wanted}"))
    failed = {row["row_key"] for row in found.rows["samples"] if row["error_code"] == failure}
    ok = {key: row.response for key, row in expected.items() if not row.code and key not in failed}
    spans = [(key, text, i) for key, text in ok.items() for i in range(_SPANS_PER_ROW)]
    problems += _difference(
        "spans/", spans, [(r["row_key"], r["text"], r["span_index"]) for r in found.rows["spans"]]
    )
    problems += _difference("traces/", list(ok), [row["row_key"] for row in found.rows["traces"]])
    return problems


def _failed(row: ExpectedRow, failure: str | None) -> ExpectedRow | None:
    """The row as it is if it failed; None if it cannot fail."""
    if failure is None or row.code:
        return None
    return replace(row, code=failure, response=None)


def _difference(where: str, expected: list[Any], found: list[Any]) -> list[Problem]:
    wanted, got = Counter(expected), Counter(found)
    problems = [Problem("lost", f"{where} {item}") for item in wanted - got]
    problems += [
        Problem("doubled" if item in wanted else "extra", f"{where} {item}")
        for item in got - wanted
    ]
    return problems


def manifest_problems(found: Snapshot) -> list[Problem]:
    """Whether the manifests name exactly the files that exist, with their numbers of rows."""
    differing = sorted(found.named.items() ^ found.files.items())
    return [Problem("manifests", f"{item} is only named or only there") for item in differing]


def verdict_problems(found: Snapshot, n_shards: int) -> list[Problem]:
    """Whether the verdict says that the run is finished, with the numbers that are there."""
    if found.verdict is None:
        return [Problem("verdict", "is missing")]
    n_error = sum(bool(row["error_code"]) for row in found.rows["samples"])
    n_rows = len(found.rows["samples"])
    expected = {
        "finished": True,
        "exit_code": 0,
        "reason": "done",
        "n_rows": n_rows,
        "n_ok": n_rows - n_error,
        "n_error": n_error,
        "n_spans": len(found.rows["spans"]),
        "n_shards": n_shards,
        "n_published": n_shards,
    }
    return [
        Problem("verdict", f"{name} is {found.verdict.get(name)!r}, not {value!r}")
        for name, value in expected.items()
        if found.verdict.get(name) != value
    ]


def leftover_problems(found: Snapshot) -> list[Problem]:
    """Temporary files, chunk files and counts of attempts."""
    left = [
        name
        for name in found.names
        if (name.endswith(PARTIAL) and LEASE not in name)
        or name.startswith(("_parts/", "_attempts/", "_staged/"))
    ]
    return [Problem("leftover", name) for name in left]
