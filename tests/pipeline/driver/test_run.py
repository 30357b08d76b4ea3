"""Drive runs from plan to verdict, with a plain function in place of the graph."""

from __future__ import annotations

import datetime
import json
from collections.abc import Generator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from omnitrace_core.errors import ConfigError, RunError
from pipeline.driver.plan_run import check_writable
from pipeline.driver.run import run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.chunk_files import chunk_file_name, count_chunk_file, read_chunk_file
from pipeline.run_folder.commit import CommittedChunk, commit_chunk
from pipeline.run_folder.manifests import manifest_name, read_manifests
from pipeline.run_folder.publish import publish_shard
from pipeline.run_folder.table_files import table_name
from pipeline.run_folder.verdict import ExitCode, is_finished
from pipeline.storage.folder import Folder
from stages.arrow.chunk import sample_structs, with_rows
from tests.pipeline.drivers import query
from tests.pipeline.made_runs import (
    ALL_ROWS,
    DAY,
    Worker,
    assert_complete,
    config_for,
    planned_run,
    row_keys,
    rows,
)
from tests.stages.chunks import Killed


def test_every_row_is_published_once(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    verdict = run(planned, Worker(planned.folder))
    assert_complete(planned)
    assert (verdict.exit_code, verdict.finished, verdict.reason) == (0, True, "done")
    assert (verdict.n_rows, verdict.n_ok, verdict.n_error, verdict.n_spans) == (6, 4, 2, 8)
    assert verdict.by_code == {"duplicate_sample_id": 1, "missing_sample_id": 1}
    assert verdict.by_stage == {"read": 2}
    assert verdict.n_published == verdict.n_shards == 3
    by_key = {row["row_key"]: row for row in rows(planned.folder, "samples")}
    assert by_key["b.parquet:2"]["error_code"] == "duplicate_sample_id"
    assert "a.parquet:0" in by_key["b.parquet:2"]["message"]
    assert by_key["b.parquet:1"]["sample_id"] == ""
    assert by_key["a.parquet:0"]["message"] == ""
    content = json.loads(planned.folder.read("verdict.json"))
    assert (content["n_ok"], content["exit_code"], content["finished"]) == (4, 0, True)
    content = json.loads(planned.folder.read("run.json"))
    assert content["plan"]["n_rows"] == 6
    assert content["config"]["run"]["chunk_samples"] == 2
    assert content["media_rules"]["sample_rate"] == 16_000
    assert content["versions"]["ray"] != "not installed"


def test_finished_run_is_left_alone(folder: Path) -> None:
    config = config_for(folder)
    first = run(planned_run(config), Worker(planned_run(config).folder))

    def state() -> dict[str, tuple[int, int]]:
        paths = [path for path in (folder / "output").rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}

    before = state()
    again = planned_run(config, lambda: DAY + datetime.timedelta(days=1))
    assert is_finished(again)
    worker = Worker(again.folder)
    assert run(again, worker) == first
    assert worker.done == []
    assert state() == before


def test_interrupted_run_is_continued_and_not_redone(folder: Path) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    worker = Worker(planned.folder)

    def killed(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from worker(chunks[:3])
        raise Killed

    with pytest.raises(Killed):
        run(planned, killed)
    assert json.loads(planned.folder.read("verdict.json"))["finished"] is False
    assert row_keys(planned.folder) == [f"a.parquet:{row}" for row in range(3)]
    # On the next day.
    later = planned_run(config, lambda: DAY + datetime.timedelta(days=1))
    assert later.folder.root == planned.folder.root
    second = Worker(later.folder)
    assert run(later, second).exit_code == 0
    assert len(second.done) == 1
    assert not set(second.done) & set(worker.done)
    assert_complete(later)


def test_keyboard_interrupt_is_incomplete(folder: Path) -> None:
    planned = planned_run(config_for(folder))

    def interrupted(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from Worker(planned.folder)(chunks[:1])
        raise KeyboardInterrupt

    verdict = run(planned, interrupted)
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "the same command continues" in verdict.reason
    assert json.loads(planned.folder.read("verdict.json"))["exit_code"] == 4


def test_missing_chunks_make_a_run_incomplete(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    verdict = run(planned, lambda chunks: Worker(planned.folder)(chunks[1:]))
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "chunks of 1 shard did not come back" in verdict.reason
    assert verdict.n_rows == 3


def test_small_windows_give_the_same_output(folder: Path) -> None:
    planned = planned_run(config_for(folder, run={"window_chunks": 1}))
    sizes: list[int] = []

    def counted(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        sizes.append(len(chunks))
        yield from Worker(planned.folder)(chunks)

    run(planned, counted)
    assert sizes == [1, 1, 1, 1]
    assert_complete(planned)


def test_chunks_may_come_back_in_any_order(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    run(planned, lambda chunks: Worker(planned.folder)(chunks[::-1]))
    assert_complete(planned)
    keys = [row["row_key"] for row in rows(planned.folder, "samples")]
    assert keys == ALL_ROWS


@pytest.mark.parametrize(("limit", "code"), [(0.5, 0), (2 / 6, 0), (0.3, 4), (0.0, 4)])
def test_too_many_errors_are_exit_code_4(folder: Path, limit: float, code: int) -> None:
    planned = planned_run(config_for(folder, run={"max_error_fraction": limit}))
    verdict = run(planned, Worker(planned.folder))
    assert verdict.exit_code == code
    assert verdict.finished
    if code:
        assert "2 of 6 rows are errors, above run.max_error_fraction" in verdict.reason
    assert_complete(planned)
    # The verdict on a finished run follows the present limit, without any work.
    strict = planned_run(config_for(folder, run={"max_error_fraction": 1 - limit}))
    worker = Worker(strict.folder)
    assert run(strict, worker).exit_code == (0 if 1 - limit >= 2 / 6 else 4)
    assert worker.done == []


def test_manifest_deleted_while_manifests_are_read_is_skipped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver may delete it; the lease decides who has the run."""
    planned = planned_run(config_for(folder))
    run(planned, Worker(planned.folder))
    names = Folder.names

    def too_many(storage: Folder, place: str = "", suffix: str = "") -> list[str]:
        return [*names(storage, place, suffix), *(["shard-00077.json"] if suffix else [])]

    monkeypatch.setattr(Folder, "names", too_many)
    assert len(read_manifests(planned.folder)) == 3


def test_chunk_with_a_lost_or_foreign_row_is_not_committed(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    chunk = next(planned.plan.chunks(planned.plan.shards[0]))
    table = Worker(planned.folder).records(chunk)
    twice = pa.concat_arrays([sample_structs(table).slice(0, 1), sample_structs(table).slice(0, 1)])
    with pytest.raises(RunError, match=r"a\.parquet, rows 0 to 2: 1 row lost .*a\.parquet:1"):
        commit_chunk(with_rows(table, twice), planned.folder)
    assert not planned.folder.exists(chunk_file_name(chunk.key))


def test_wrong_chunk_file_is_not_published(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    shard = planned.plan.shards[0]
    first, second = planned.plan.chunks(shard)
    list(Worker(planned.folder)([first, second]))
    planned.folder.write(
        chunk_file_name(first.key), planned.folder.read(chunk_file_name(second.key))
    )
    with pytest.raises(RunError, match="rows lost"):
        publish_shard(planned.folder, planned.plan, shard, ("samples", "spans", "traces"))
    assert not planned.folder.exists(manifest_name(shard.number))
    assert not planned.folder.exists(table_name("samples", shard.number))


@pytest.mark.parametrize("left", [0, 100, -1])
def test_truncated_chunk_file_is_named(folder: Path, left: int) -> None:
    planned = planned_run(config_for(folder))
    chunk = next(planned.plan.chunks(planned.plan.shards[0]))
    list(Worker(planned.folder)([chunk]))
    assert count_chunk_file(planned.folder, chunk) == (2, 0)
    planned.folder.write(
        chunk_file_name(chunk.key), planned.folder.read(chunk_file_name(chunk.key))[:left]
    )
    for read in (read_chunk_file, count_chunk_file):
        with pytest.raises(
            RunError, match=r"\.arrow is not a chunk file .*delete it and run again"
        ):
            read(planned.folder, chunk)


def test_unreadable_manifest_is_named(folder: Path) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    run(planned, Worker(planned.folder))
    planned.folder.write(manifest_name(1), b"{}")
    with pytest.raises(RunError, match=r"shard-00001\.json is not a manifest.*delete it"):
        planned_run(config)


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output\.path=.* cannot be written"):
        check_writable(Folder(str(tmp_path / "file" / "below")))


def test_duckdb_reads_the_output(folder: Path) -> None:
    planned = planned_run(config_for(folder))
    run(planned, Worker(planned.folder))
    output = folder / "output"
    found = query(
        "select sample_id, span_index, unnest(sources), run_id, run_date "
        f"from '{output}/**/spans/*.parquet' order by all"
    )
    assert [(row[0], row[1]) for row in found] == [
        (str(i), j) for i in (1, 2, 3, 4) for j in (0, 1)
    ]
    assert found[0][2]["kind"] == "sentence"
    assert found[0][-2:] == (planned.identity.run_id, DAY)
    counts = query(
        f"select status, error_code, count(*) from '{output}/**/samples/*.parquet' "
        "group by all order by all"
    )
    assert counts == [
        ("error", "duplicate_sample_id", 1),
        ("error", "missing_sample_id", 1),
        ("ok", "", 4),
    ]


def test_object_store_gives_the_same_output(folder: Path) -> None:
    """Any fsspec filesystem; here one in memory, which has no os.replace."""
    local = planned_run(config_for(folder))
    run(local, Worker(local.folder))
    remote = planned_run(config_for(folder, output={"path": "memory://bucket/output"}))
    verdict = run(remote, Worker(remote.folder))
    assert verdict.exit_code == 0
    names = local.folder.tree(".parquet")
    assert remote.folder.tree(".parquet") == names
    for name in names:
        assert remote.folder.read(name) == local.folder.read(name)
    assert is_finished(planned_run(config_for(folder, output={"path": "memory://bucket/output"})))
