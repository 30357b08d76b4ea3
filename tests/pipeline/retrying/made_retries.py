"""Runs whose error rows are done again, and what tests look for in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.driver.run import run
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.table_files import STAGED
from pipeline.run_folder.verdict import Verdict
from pipeline.storage.folder import Folder
from tests.pipeline.made_runs import (
    ALL_ROWS,
    Worker,
    config_for,
    planned_run,
    rows,
)

FAILING = {"2": "media_missing", "3": "media_timeout", "4": "media_missing"}
STILL_FAILING = {"3": "media_timeout"}
Rows = dict[str, list[dict[str, Any]]]


def retrying(folder: Path, retry: object = "errors", **sections: Any) -> RunConfig:
    """The config of the runs below with `run.retry`."""
    return config_for(folder, **{"run": {"retry": retry}, **sections})


def run_with(
    config: RunConfig, response: str, failing: Mapping[str, str]
) -> tuple[Verdict, Worker]:
    planned = planned_run(config)
    worker = Worker(planned.folder, response, failing=failing)
    return run(planned, worker), worker


def tables(folder: Folder) -> dict[str, Rows]:
    """All rows by table and row key."""
    found: dict[str, Rows] = {}
    for table in ("samples", "spans", "traces"):
        found[table] = {}
        for row in rows(folder, table):
            found[table].setdefault(row["row_key"], []).append(row)
    return found


def traced(found: dict[str, Rows]) -> dict[str, tuple[Any, ...]]:
    """What a reader sees who begins with samples/: the other tables' rows of ok rows only."""
    return {
        key: (sample, *(found[t].get(key) for t in ("spans", "traces") if sample["status"] == "ok"))
        for key, (sample,) in found["samples"].items()
    }


def assert_whole(folder: Folder, keys: Sequence[str] = ALL_ROWS) -> None:
    """The manifests count what is there, and each row's records are of one attempt."""
    found = tables(folder)
    assert sorted(found["samples"]) == list(keys)
    for key, (sample,) in found["samples"].items():
        spans, traces = found["spans"].get(key, []), found["traces"].get(key, [])
        if sample["status"] == "ok":
            assert [span["text"] for span in spans] == [sample["response"]] * 2
            assert len(traces) == 1
        else:
            assert spans == traces == []
    for manifest in read_manifests(folder).values():
        assert manifest.key
        assert manifest.replacement is None
        of_shard = [row for (row,) in found["samples"].values() if manifest.shard in row["row_key"]]
        codes = [row["error_code"] for row in of_shard if row["status"] == "error"]
        assert manifest.by_code == {code: codes.count(code) for code in codes}
        assert (manifest.n_error, manifest.n_rows) == (len(codes), len(of_shard))
        for name, count in manifest.files.items():
            assert manifest.sizes[name] == len(folder.read(name))
            assert count == sum(
                len(items)
                for key, items in found[name.partition("/")[0]].items()
                if manifest.shard in key
            )


def leftovers(folder: Folder) -> list[str]:
    return [name for name in folder.tree("") if name.startswith(("_parts", "_attempts", STAGED))]


def parquet_files(folder: Folder) -> dict[str, bytes]:
    return {name: folder.read(name) for name in folder.tree(".parquet")}
