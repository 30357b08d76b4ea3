"""Published files that are emptied, cut or replaced are noticed, and their shards done again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Generator, Sequence
from itertools import product
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import RunConfig
from pipeline.driver.finished_run import finished_verdict
from pipeline.driver.run import run
from pipeline.planning.identified_run import identify_run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.manifests import MANIFESTS, read_manifests
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.published_files import list_published
from pipeline.run_folder.verdict import ExitCode
from pipeline.storage.folder import Folder
from tests.pipeline.made_runs import (
    DAY,
    Worker,
    config_for,
    planned_run,
    row_keys,
    write_input,
)

KEPT = ("samples", "spans", "traces")


def _with_rows(content: bytes, change: Callable[[pa.Table], pa.Table]) -> bytes:
    table = pq.read_table(io.BytesIO(content))
    new = io.BytesIO()
    pq.write_table(change(table), new)
    return new.getvalue()


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda _: b"",
    "cut": lambda content: content[:-9],
    "without rows": lambda content: _with_rows(content, lambda table: table.slice(0, 0)),
    "fewer rows": lambda content: _with_rows(content, lambda table: table.slice(0, 1)),
    "more rows": lambda content: _with_rows(content, lambda t: pa.concat_tables([t, t])),
    "longer": lambda content: content + b"more",
}
CASES = list(product(KEPT, CHANGES))
SHARDS = [f"shard{index:02d}" for index in range(len(CASES))]
UNTOUCHED = "untouched"
LAST = "z-last"  # published after the others
ALL = [*SHARDS, UNTOUCHED, LAST]


def _config(folder: Path, output: str) -> RunConfig:
    write_input(folder / "input", **{name: [f"{name}:1", f"{name}:2"] for name in ALL})
    return config_for(folder, output={"path": output}, run={"window_chunks": 1})


def _damage(planned: PlannedRun, *, sizes_known: bool) -> None:
    """Change one file of each shard in SHARDS, in the way of its case."""
    folder = planned.folder
    manifests = read_manifests(folder)
    for shard, (table, change) in zip(SHARDS, CASES, strict=True):
        if not sizes_known and change == "longer":
            continue
        name = f"{table}/shard-{manifests[f'{shard}.parquet'].number:05d}.parquet"
        folder.write(name, CHANGES[change](folder.read(name)))
    if not sizes_known:
        for name in folder.names(MANIFESTS):
            content = json.loads(folder.read(f"{MANIFESTS}/{name}"))
            del content["sizes"]
            folder.write(f"{MANIFESTS}/{name}", json.dumps(content).encode())


Moment = Literal["while working", "between drivers", "after the end"]


def _run_and_damage(config: RunConfig, moment: Moment, *, sizes_known: bool) -> None:
    planned = planned_run(config)
    worker = Worker(planned.folder)

    def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        if chunks[0].shard == f"{LAST}.parquet":
            if moment == "between drivers":
                raise KeyboardInterrupt
            if moment == "while working":
                yield from worker(chunks)
                _damage(planned, sizes_known=sizes_known)
                return
        yield from worker(chunks)

    verdict = run(planned, execute)
    if moment == "while working":
        assert verdict.exit_code == ExitCode.INCOMPLETE
        n_damaged = len(SHARDS) if sizes_known else len(SHARDS) - len(KEPT)
        assert f"manifests of {n_damaged} shards (shard00.parquet, " in verdict.reason
        return
    assert verdict.exit_code == (0 if moment == "after the end" else ExitCode.INCOMPLETE)
    _damage(planned, sizes_known=sizes_known)


def _assert_put_right(config: RunConfig, moment: Moment, *, sizes_known: bool) -> None:
    assert finished_verdict(identify_run(config, lambda: DAY)) is None
    planned = planned_run(config)
    worker = Worker(planned.folder)
    chunks = {
        chunk.key: chunk.shard
        for shard in planned.plan.shards
        for chunk in planned.plan.chunks(shard)
    }
    assert run(planned, worker).exit_code == 0
    damaged = [
        shard
        for shard, (_, change) in zip(SHARDS, CASES, strict=True)
        if sizes_known or change != "longer"
    ]
    if moment == "between drivers":
        damaged.append(LAST)
    # Only what was damaged is done again.
    assert {chunks[key] for key in worker.done} == {f"{name}.parquet" for name in damaged}
    expected = sorted(f"{name}.parquet:{row}" for name in ALL for row in range(2))
    assert row_keys(planned.folder) == expected
    assert row_keys(planned.folder, "spans") == sorted(expected * 2)
    assert row_keys(planned.folder, "traces") == expected
    assert finished_verdict(identify_run(config, lambda: DAY)) is not None
    if sizes_known:
        assert _written(planned.folder) == list_published(planned.folder).tables


def _written(folder: Folder) -> dict[str, int]:
    manifests = read_manifests(folder).values()
    return {name: size for item in manifests for name, size in item.sizes.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "sizes_known"),
    [
        ("while working", True),
        ("between drivers", True),
        ("after the end", True),
        # Manifests of an older version: rows are counted instead.
        ("while working", False),
        ("between drivers", False),
    ],
)
def test_changed_files_are_noticed_and_their_shards_done_again(
    tmp_path: Path, moment: Moment, sizes_known: bool
) -> None:
    config = _config(tmp_path, str(tmp_path / "output"))
    _run_and_damage(config, moment, sizes_known=sizes_known)
    _assert_put_right(config, moment, sizes_known=sizes_known)


@pytest.mark.slow
def test_changed_files_on_s3(tmp_path: Path, s3_folder: str) -> None:
    config = _config(tmp_path, s3_folder)
    _run_and_damage(config, "while working", sizes_known=True)
    _assert_put_right(config, "while working", sizes_known=True)
