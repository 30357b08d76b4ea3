from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ray.util import metrics as ray_metrics

from omnitrace_core.errors import LeaseLost
from pipeline import counters
from pipeline.counters import COUNTERS, Count, add_chunk_to_counters, counts
from pipeline.run_folder.commit import commit_chunk
from pipeline.run_folder.lease import acquire_lease
from pipeline.run_folder.lease_file import Claim
from pipeline.storage.folder import Folder
from stages.arrow.chunk import sample_structs, with_rows
from stages.arrow.table_schema import RECORD
from tests.pipeline.made_runs import Worker, config_for, planned_run, write_input


@pytest.fixture
def records(tmp_path: Path) -> tuple[Folder, pa.Table]:
    """A chunk of three records: two traced, one of which took three attempts, and an error."""
    write_input(tmp_path / "input", a=["1", "2", None])
    planned = planned_run(config_for(tmp_path, run={"chunk_samples": 3}))
    (chunk,) = planned.plan.chunks(planned.plan.shards[0])
    table = Worker(planned.folder).records(chunk)
    rows: list[dict[str, Any]] = sample_structs(table).to_pylist()
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
    return planned.folder, with_rows(table, pa.array(rows, RECORD))


def test_counts_of_a_chunk_come_from_its_records(records: tuple[Folder, pa.Table]) -> None:
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


def test_chunk_is_counted_after_its_commit(
    records: tuple[Folder, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = records
    increments: list[tuple[str, float, dict[str, str]]] = []

    class RecordingCounter(ray_metrics.Counter):
        def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
            increments.append((self.info["name"], value, tags or {}))

    count = partial(add_chunk_to_counters, run_id="nightly")
    counters.counter.cache_clear()
    monkeypatch.setattr("ray.util.metrics.Counter", RecordingCounter)
    lease = acquire_lease(folder, 60)
    try:
        committed = commit_chunk(table, folder, lease.claim, count)
    finally:
        counters.counter.cache_clear()
        lease.release()
    assert committed.column("n_rows").to_pylist() == [3]
    assert {name for name, _, _ in increments} <= set(COUNTERS)
    rows = [tags for name, _, tags in increments if name == "omnitrace_rows"]
    assert {"run_id": "nightly", "status": "ok", "code": ""} in rows
    with pytest.raises(LeaseLost, match="may not commit"):
        commit_chunk(table, folder, Claim(1, "another"), count)
    assert len(increments) == 8
