"""Runs whose chunks a plain function processes in place of the graph: no model, no Ray."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnitrace_core.media_rules import MediaRules
from pipeline.config import RunConfig
from pipeline.graph import plan_row
from pipeline.planning.identified_run import identify_run
from pipeline.planning.input_shards import media_roots, scan_input
from pipeline.planning.plan import Chunk, make_plan
from pipeline.run_folder.commit import CommittedChunk, commit_chunk
from pipeline.run_folder.lease_file import Claim
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.published_files import list_published
from pipeline.storage.folder import Folder
from stages.arrow.chunk import sample_structs, with_rows
from stages.arrow.table_schema import RECORD, SCHEMA_VERSION, TABLES
from stages.read_samples import read_samples
from tests.stages.chunks import text_row, write_shard

DAY = datetime.date(2026, 1, 31)


def write_input(folder: Path, **shards: Sequence[str | None]) -> None:
    """One shard per name, a text sample per id."""
    for name, ids in shards.items():
        write_shard(folder / f"{name}.parquet", [text_row(sample_id) for sample_id in ids])


def config_for(folder: Path, **sections: Any) -> RunConfig:
    """A config over `folder`/input, `folder`/output and a stand-in for a model."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    tree: dict[str, Any] = {
        "input": {"path": str(folder / "input")},
        "output": {"path": str(folder / "output")},
        "model": {"path": str(model)},
        "run": {"chunk_samples": 2},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return RunConfig.model_validate(tree)


def planned_run(config: RunConfig, today: Callable[[], datetime.date] = lambda: DAY) -> PlannedRun:
    """`prepare` without a real model."""
    identified = identify_run(config, today)
    identity = identified.identity
    manifests = read_manifests(identity.folder)
    scans = scan_input(identified.listing)
    plan = make_plan(
        scans,
        identity.fingerprint,
        config.run.chunk_samples,
        {name: manifest.number for name, manifest in manifests.items()},
    )
    return PlannedRun(config, identity, plan, manifests, MediaRules(), media_roots(scans))


class Worker:
    """Processes chunks one after another; `done` has the keys of the processed chunks.

    response: of each sample and text of each span, to tell the records of runs apart. claim: of the
    driver that the worker works for; None checks no lease. failing: error code of each sample_id
    that fails when it is traced.
    """

    def __init__(
        self,
        folder: Folder,
        response: str = "",
        claim: Claim | None = None,
        failing: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.response = response
        self.claim = claim
        self.failing = failing or {}
        self.done: list[str] = []

    def __call__(self, chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        for chunk in chunks:
            row = commit_chunk(self.records(chunk), self.folder, self.claim).to_pylist()[0]
            self.done.append(chunk.key)
            yield CommittedChunk(**row)

    def records(self, chunk: Chunk) -> pa.Table:
        """The chunk's rows as finished records: errors of reading, or two spans each."""
        table = read_samples(plan_row(chunk))
        records = [self._record(row) for row in sample_structs(table).to_pylist()]
        return with_rows(table, pa.array(records, RECORD))

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        error, sample_id = row["error"], row["sample"]["sample_id"] or ""
        if error is None and sample_id in self.failing:
            message = f"{self.response}: {sample_id} fails"
            error = {"stage": "trace", "code": self.failing[sample_id], "message": message}
        shared = {
            "row_key": row["row_key"],
            "sample_id": sample_id,
            "schema_version": SCHEMA_VERSION,
        }
        sample = {
            **shared,
            "status": "error" if error else "ok",
            "response": None if error else self.response,
            "error_stage": error["stage"] if error else "",
            "error_code": error["code"] if error else "",
            "message": error["message"] if error else "",
            "attempts": 1,
            "notes": [],
        }
        if error:
            return {"sample": sample, "spans": [], "traces": []}
        source = {"unit_id": 0, "kind": "sentence", "modality": "text", "part_index": 0, "rank": 1}
        source |= {"mass": 0.5, "share": 1.0, "text": "The lamp is red."}
        spans = [
            {
                **shared,
                "span_index": i,
                "text": self.response,
                "outcome": "supported",
                "confidence": 0.5,
                "sources": [source],
            }
            for i in range(2)
        ]
        trace = {**shared, "signal": "attmean", "n_tokens": 1, "n_units": 1, "mass": [0.5]}
        return {"sample": sample, "spans": spans, "traces": [trace]}


def rows(folder: Folder, table: str) -> list[dict[str, Any]]:
    """The rows that a plain glob over a published table finds."""
    names = folder.names(table, suffix=".parquet")
    tables = [pq.read_table(pa.BufferReader(folder.read(f"{table}/{name}"))) for name in names]
    for found in tables:
        assert found.schema.equals(TABLES[table])
        assert found.schema.metadata == TABLES[table].metadata
    return [row for found in tables for row in found.to_pylist()]


def row_keys(folder: Folder, table: str = "samples") -> list[str]:
    """Row keys of a published table, sorted."""
    return sorted(row["row_key"] for row in rows(folder, table))


def stored_verdict(planned: PlannedRun) -> dict[str, object]:
    """The content of verdict.json."""
    verdict: dict[str, object] = json.loads(planned.folder.read("verdict.json"))
    return verdict


# Of the input that the fixture `folder` writes.
ALL_ROWS = sorted(f"{shard}.parquet:{row}" for shard in "ab" for row in range(3))
GOOD_ROWS = [key for key in ALL_ROWS if key not in ("b.parquet:1", "b.parquet:2")]


def assert_complete(planned: PlannedRun) -> None:
    """Every row once in samples/, good rows' spans and traces once, and nothing left over."""
    assert row_keys(planned.folder) == ALL_ROWS
    assert row_keys(planned.folder, "spans") == sorted(GOOD_ROWS * 2)
    assert row_keys(planned.folder, "traces") == GOOD_ROWS
    assert planned.folder.tree(".partial") == []
    assert planned.folder.names("_parts") == []
    manifests = read_manifests(planned.folder)
    written = {name: size for item in manifests.values() for name, size in item.sizes.items()}
    assert written == list_published(planned.folder).tables
    assert sum(manifest.n_rows for manifest in manifests.values()) == len(ALL_ROWS)
