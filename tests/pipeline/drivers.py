"""Start runs in separate processes, to be killed, and check their output afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow.parquet as pq

from tests.stages.chunks import Row, text_row, write_shard

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Case:
    """A run in a folder: its config file, and the environment of its drivers."""

    folder: Path
    tree: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> str:
        """Path of the config file, as it stands now."""
        path = self.folder / "run.json"
        path.write_text(json.dumps(self.tree))
        return str(path)

    @property
    def root(self) -> Path | None:
        """The run's folder, once there is one."""
        return next(iter((self.folder / "output").glob("run_date=*/run_id=*")), None)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a driver in a new process group; its output goes to the file `log`."""
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "pipeline", "run", self.config, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=REPOSITORY,
                env={**os.environ, **self.env},
            )

    def finish(self, *arguments: str, timeout_s: float = 400) -> int:
        """Run a driver to its end; returns its exit code."""
        driver = self.start(*arguments)
        try:
            return driver.wait(timeout_s)
        finally:
            kill_group(driver)

    def log(self) -> str:
        """The end of the drivers' output, for a message."""
        return self.output()[-4000:]

    def output(self) -> str:
        """The whole output of the drivers."""
        return (self.folder / "log").read_text(errors="replace")

    def n_chunk_files(self) -> int:
        """Chunks that are committed and not published."""
        return len(list(self.root.glob("_parts/*.arrow"))) if self.root else 0

    def published(self) -> int:
        """Shards that are published."""
        return len(list(self.root.glob("_manifests/*.json"))) if self.root else 0

    def at_work(self) -> bool:
        """Whether anything is committed."""
        return self.n_chunk_files() + self.published() > 0


def make_case(
    folder: Path, model: str, shards: Mapping[str, Sequence[str | Row | None]], **sections: Any
) -> Case:
    """A case over samples: rows, or ids of text samples."""
    for name, samples in shards.items():
        rows = [item if isinstance(item, dict) else text_row(item) for item in samples]
        write_shard(folder / "input" / f"{name}.parquet", rows)
    tree: dict[str, Any] = {
        "input": {"path": str(folder / "input")},
        "output": {"path": str(folder / "output")},
        "run": {"id": "case", "chunk_samples": 2, "lease_s": 5},
        "model": {"path": model, "device": "cpu", "gpus_per_replica": 0},
        "decode": {"max_new_tokens": 24},
        "trace": {"signals": ["attmean"]},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return Case(folder, tree)


def wait_until(
    reached: Callable[[], bool], driver: subprocess.Popen[bytes] | None = None, wait_s: float = 400
) -> None:
    """Wait until a condition holds, the driver has ended, or `wait_s` is over."""
    end = time.monotonic() + wait_s
    while not reached() and time.monotonic() < end:
        if driver is not None and driver.poll() is not None:
            return
        time.sleep(0.05)


def kill_group(driver: subprocess.Popen[bytes]) -> None:
    """Kill a driver's process group, and wait for descendants that left the group."""
    left = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    psutil.wait_procs(left, timeout=20)


def expected_rows(case: Case) -> Counter[str]:
    """Row keys of the input."""
    found: Counter[str] = Counter()
    for path in (case.folder / "input").rglob("*.parquet"):
        name = path.relative_to(case.folder / "input").as_posix()
        found.update(f"{name}:{row}" for row in range(pq.read_metadata(path).num_rows))
    return found


def query(sql: str) -> list[tuple[Any, ...]]:
    """The rows that DuckDB returns for a query."""
    relation = duckdb.sql(sql)
    assert relation is not None
    return relation.fetchall()


def assert_exactly_once(case: Case) -> dict[str, str]:
    """Check that each input row is published once; returns its error code by row key.

    Checked by a plain glob and by the manifests. Only rows without an error have spans, and no
    temporary files are left.
    """
    root = case.root
    assert root is not None, case.log()
    glob = f"{root}/samples/*.parquet"
    found = query(f"select row_key, status, error_code from '{glob}'")
    assert Counter(row[0] for row in found) == expected_rows(case)
    assert all((status == "ok") == (code == "") for _, status, code in found)
    manifests = [json.loads(path.read_text()) for path in root.glob("_manifests/*.json")]
    named = {name: rows for manifest in manifests for name, rows in manifest["files"].items()}
    on_disk = {
        f"{path.parent.name}/{path.name}": pq.read_metadata(path).num_rows
        for path in root.glob("*/*.parquet")
    }
    assert named == on_disk
    listed = [str(root / name) for name in named if name.startswith("samples/")]
    by_manifest = query(f"select row_key from read_parquet({listed})")
    assert Counter(row[0] for row in by_manifest) == expected_rows(case)
    spans = query(
        f"select row_key, count(*), count(distinct span_index) from '{root}/spans/*.parquet' "
        "group by row_key"
    )
    assert {row[0] for row in spans} == {row[0] for row in found if row[1] == "ok"}
    assert all(rows == indices for _, rows, indices in spans)
    left = [path for path in root.rglob("*") if path.name.endswith(".partial")]
    assert left + list(root.glob("_parts/*")) + list(root.glob("_attempts/*")) == []
    verdict = json.loads((root / "verdict.json").read_text())
    assert (verdict["finished"], verdict["n_rows"]) == (True, len(found))
    return {row[0]: row[2] for row in found}
