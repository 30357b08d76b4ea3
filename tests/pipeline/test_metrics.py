from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ray.util import metrics as ray_metrics

from pipeline import metrics
from pipeline.metrics import COUNTERS, Count, commit_and_count, counts
from pipeline.run_folder.lease import Claim, acquire
from pipeline.storage.folder import Storage
from stages.arrow.chunk import rows_of, with_rows
from stages.arrow.schema import RECORD
from tests.pipeline.made_runs import Worker, config_for, job_for, write_input


@pytest.fixture
def records(tmp_path: Path) -> tuple[Storage, pa.Table]:
    """A chunk of three records: two traced, one of which took three attempts, and an error."""
    write_input(tmp_path / "input", a=["1", "2", None])
    job = job_for(config_for(tmp_path, run={"chunk_samples": 3}))
    (chunk,) = job.plan.chunks(job.plan.shards[0])
    table = Worker(job.folder).records(chunk)
    rows: list[dict[str, Any]] = rows_of(table).to_pylist()
    for row, attempts, spent in zip(rows, (1, 3, 1), (0.5, 0.25, 0.0), strict=True):
        row["sample"]["attempts"] = attempts
        row["sample"]["timings"] = {
            "decode_s": 0.125,
            "speech_s": None,
            "trace_s": spent,
            "replay_s": spent / 4,
        }
    for row in rows[:2]:
        row["sample"]["n_generated_tokens"] = 7
        row["sample"]["traced_by"] = {"device": "cuda:0"}
    return job.folder, with_rows(table, pa.array(rows, RECORD))


def test_a_chunks_counts_are_its_records_columns(records: tuple[Storage, pa.Table]) -> None:
    assert sorted(counts(records[1]), key=lambda item: (item.name, item.tags)) == [
        Count("omnitrace_chunks", (), 1),
        Count("omnitrace_decode_seconds", (), 0.375),
        Count("omnitrace_generated_tokens", ("cuda:0",), 14),
        Count("omnitrace_replay_seconds", ("cuda:0",), 0.1875),
        Count("omnitrace_retries", (), 2),
        Count("omnitrace_rows", ("error", "missing_sample_id"), 1),
        Count("omnitrace_rows", ("ok", ""), 2),
        Count("omnitrace_trace_seconds", ("cuda:0",), 0.75),
    ]


def test_counted_once_it_is_committed(
    records: tuple[Storage, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = records
    told: list[tuple[str, float, dict[str, str]]] = []

    class Told(ray_metrics.Counter):
        def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
            told.append((self.info["name"], value, tags or {}))

    metrics._counter.cache_clear()
    monkeypatch.setattr("ray.util.metrics.Counter", Told)
    lease = acquire(folder, 60)
    try:
        committed = commit_and_count(table, folder, lease.claim, "nightly")
    finally:
        metrics._counter.cache_clear()
        lease.release()
    assert committed.column("n_rows").to_pylist() == [3]
    assert {name for name, _, _ in told} <= set(COUNTERS)
    rows = [tags for name, _, tags in told if name == "omnitrace_rows"]
    assert {"run_id": "nightly", "status": "ok", "code": ""} in rows
    with pytest.raises(Exception, match="may not commit"):
        commit_and_count(table, folder, Claim(1, "another"), "nightly")
    assert len(told) == 8
