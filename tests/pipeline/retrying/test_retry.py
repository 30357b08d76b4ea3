"""Error rows that are done again: once per command."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from omnitrace_core.errors import RunError
from pipeline.commands.summary import plan_text
from pipeline.driver.finished_run import finished_verdict
from pipeline.driver.run import run
from pipeline.planning.identified_run import identify_run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.manifests import manifest_name
from pipeline.run_folder.verdict import ExitCode
from tests.pipeline.drivers import query
from tests.pipeline.made_runs import (
    ALL_ROWS,
    DAY,
    Worker,
    config_for,
    planned_run,
    rows,
    stored_verdict,
    write_input,
)
from tests.pipeline.retrying.made_retries import (
    FAILING,
    STILL_FAILING,
    assert_whole,
    leftovers,
    parquet_files,
    retrying,
    run_with,
    tables,
)
from tests.stages.chunks import Killed


def test_chosen_rows_are_done_again_and_all_others_kept(folder: Path) -> None:
    first, _ = run_with(config_for(folder), "old", FAILING)
    output = planned_run(config_for(folder)).folder
    before = tables(output)
    verdict, worker = run_with(retrying(folder), "new", STILL_FAILING)
    assert (verdict.exit_code, verdict.finished, verdict.reason) == (0, True, "done")
    assert (first.n_error, verdict.n_error, verdict.n_ok) == (5, 3, 3)
    assert (verdict.retry, verdict.retry_of) == (1, ["errors"])
    assert (verdict.n_retried, verdict.n_mended) == (3, 2)
    assert len(worker.done) == 2
    after = tables(output)
    assert_whole(output)
    assert leftovers(output) == []
    # The row that was ok, and the two rows whose errors the input decides on.
    for key in ("a.parquet:0", "b.parquet:1", "b.parquet:2"):
        for table in after:
            assert after[table].get(key) == before[table].get(key)
    samples = {key: row for key, (row,) in after["samples"].items()}
    assert {samples[key]["response"] for key in ("a.parquet:1", "b.parquet:0")} == {"new"}
    assert samples["a.parquet:2"]["message"] == "new: 3 fails"
    attempts = {key: row["attempts"] for key, row in samples.items()}
    assert attempts == {
        key: 2 if key in ("a.parquet:1", "a.parquet:2", "b.parquet:0") else 1 for key in ALL_ROWS
    }
    assert list(samples) == ALL_ROWS
    assert verdict.inputs == first.inputs
    found = query(
        "select status, error_code, max(attempts), count(*) "
        f"from '{folder}/output/**/samples/*.parquet' group by all order by all"
    )
    assert found == [
        ("error", "duplicate_sample_id", 1, 1),
        ("error", "media_timeout", 2, 1),
        ("error", "missing_sample_id", 1, 1),
        ("ok", "", 2, 3),
    ]


def test_each_command_retries_once(folder: Path) -> None:
    run_with(config_for(folder), "old", FAILING)
    for number in (1, 2, 3):
        verdict, worker = run_with(retrying(folder), f"retry {number}", STILL_FAILING)
        assert (verdict.retry, len(worker.done)) == (number, 2 if number == 1 else 1)
    output = planned_run(config_for(folder)).folder
    samples = {row["row_key"]: row for row in rows(output, "samples")}
    assert samples["a.parquet:2"]["attempts"] == 4
    assert samples["a.parquet:2"]["message"] == "retry 3: 3 fails"
    assert samples["a.parquet:1"]["response"] == "retry 1"
    assert_whole(output)
    # Now only rows are left whose errors the input decides on.
    verdict, worker = run_with(retrying(folder), "last", {})
    assert (verdict.retry, verdict.n_error) == (4, 2)
    assert finished_verdict(identify_run(retrying(folder), lambda: DAY)) == verdict
    again, worker = run_with(retrying(folder), "none", {})
    assert (again, worker.done) == (verdict, [])


@pytest.mark.parametrize(
    ("codes", "again"),
    [
        (["media_timeout"], ["a.parquet:2"]),
        (["media_missing", "quarantined"], ["a.parquet:1", "b.parquet:0"]),
        (["duplicate_sample_id"], ["b.parquet:2"]),
        (["quarantined"], []),
        ("none", []),
    ],
)
def test_codes_choose_rows(folder: Path, codes: object, again: list[str]) -> None:
    run_with(config_for(folder), "old", FAILING)
    config = retrying(folder, codes)
    finished = finished_verdict(identify_run(config, lambda: DAY))
    assert (finished is None) == bool(again)
    run_with(config, "new", FAILING)
    output = planned_run(config).folder
    attempts = {row["row_key"]: row["attempts"] for row in rows(output, "samples")}
    assert [key for key, count in attempts.items() if count == 2] == again
    assert_whole(output)


def test_retry_of_a_run_without_published_rows_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed setting makes another run, which has no errors yet."""
    changed = retrying(folder, decode={"max_new_tokens": 7})
    first = planned_run(retrying(folder))
    assert "so there are no errors to do again, and it traces all samples" in plan_text(first)
    run(first, Worker(first.folder, "old", failing=FAILING))
    assert "published nothing with" in caplog.text
    caplog.clear()
    assert "published nothing" not in plan_text(planned_run(retrying(folder)))
    assert "published nothing" not in plan_text(
        planned_run(config_for(folder, decode={"max_new_tokens": 7}))
    )
    other = planned_run(changed)
    assert other.run_id != first.run_id
    text = plan_text(other)
    assert f"run {other.run_id} has published nothing with" in text
    assert f"/output has {first.run_id})" in text
    assert "run.id" in text
    run(other, Worker(other.folder, "new"))
    assert f"has {first.run_id})" in caplog.text
    caplog.clear()
    run_with(retrying(folder), "again", {})
    assert "published nothing" not in caplog.text


def test_errors_leaves_out_what_the_rows_of_the_input_decide_on(folder: Path) -> None:
    """`input_damaged` may be a fault of the reading, and memory may be free the next time."""
    decided = {"1": "invalid_sample", "2": "unknown_part_type"}
    run_with(config_for(folder), "old", {**decided, "3": "input_damaged", "4": "out_of_memory"})
    output = planned_run(config_for(folder)).folder
    verdict, _ = run_with(retrying(folder), "new", {})
    assert (verdict.n_retried, verdict.n_mended) == (2, 2)
    samples = {row["row_key"]: row for row in rows(output, "samples")}
    again = [key for key, row in samples.items() if row["attempts"] == 2]
    assert again == ["a.parquet:2", "b.parquet:0"]
    # An update may accept more: then the code is named.
    verdict, _ = run_with(retrying(folder, sorted(decided.values())), "named", {})
    assert (verdict.n_retried, verdict.n_mended) == (2, 2)
    assert_whole(output)


@pytest.mark.parametrize("n_rows", [1, 2, 7])
def test_shards_in_which_every_row_fails(tmp_path: Path, n_rows: int) -> None:
    ids = [str(number) for number in range(n_rows)]
    write_input(tmp_path / "input", a=ids, b=["ok"])
    failing = dict.fromkeys(ids, "internal")
    run_with(config_for(tmp_path), "old", failing)
    config = retrying(tmp_path)
    verdict, worker = run_with(config, "new", {})
    assert (verdict.n_error, verdict.n_mended) == (0, n_rows)
    assert len(worker.done) == -(-n_rows // 2)
    assert [row["response"] for row in rows(planned_run(config).folder, "samples")] == [
        *["new"] * n_rows,
        "old",
    ]


def test_interrupted_retry_is_unfinished_and_goes_on(folder: Path) -> None:
    run_with(config_for(folder), "old", FAILING)
    config = retrying(folder)
    planned = planned_run(config)

    def interrupted(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from Worker(planned.folder, "first", failing=STILL_FAILING)(chunks[:1])
        raise KeyboardInterrupt

    verdict = run(planned, interrupted)
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "the same command continues" in verdict.reason
    assert (verdict.n_rows, verdict.retry, verdict.n_mended) == (6, 1, 1)
    verdict, worker = run_with(config, "second", STILL_FAILING)
    assert (verdict.exit_code, verdict.retry, verdict.n_mended, len(worker.done)) == (0, 1, 2, 1)
    samples = {row["row_key"]: row for row in rows(planned.folder, "samples")}
    assert samples["a.parquet:2"]["message"] == "first: 3 fails"
    assert samples["a.parquet:2"]["attempts"] == 2
    assert_whole(planned.folder)


def test_retry_whose_chunks_are_lost_is_unfinished(folder: Path) -> None:
    run_with(config_for(folder), "old", FAILING)
    planned = planned_run(retrying(folder))
    verdict = run(planned, lambda chunks: Worker(planned.folder, "new")(chunks[1:]))
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "chunks of 1 shard did not come back" in verdict.reason
    assert stored_verdict(planned)["finished"] is False


def test_other_choice_than_that_of_a_killed_retry_is_a_new_retry(folder: Path) -> None:
    run_with(config_for(folder), "old", FAILING)
    planned = planned_run(retrying(folder))

    def killed(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from Worker(planned.folder, "first", failing=FAILING)(chunks[:1])
        raise Killed

    with pytest.raises(Killed):
        run(planned, killed)
    verdict, worker = run_with(retrying(folder, ["media_missing"]), "second", {})
    assert (verdict.retry, verdict.retry_of, len(worker.done)) == (2, ["media_missing"], 2)
    attempts = {row["row_key"]: row["attempts"] for row in rows(planned.folder, "samples")}
    assert (attempts["a.parquet:1"], attempts["a.parquet:2"]) == (3, 2)


def test_new_and_changed_shards_are_finished_and_then_retried(folder: Path) -> None:
    run_with(config_for(folder), "old", FAILING)
    write_input(folder / "input", a=["1", "2", "x"], d=["8", "9"])
    config = retrying(folder)
    tried: list[str] = []
    planned = planned_run(config)

    class Flaky(Worker):
        """`8` fails at its first try only, `9` always."""

        def _record(self, row: dict[str, Any]) -> dict[str, Any]:
            sample_id = row["sample"]["sample_id"] or ""
            self.failing = {"9": "internal"} if "8" in tried else {"8": "internal", "9": "internal"}
            tried.append(sample_id)
            return super()._record(row)

    verdict = run(planned, Flaky(planned.folder, "new"))
    assert (verdict.finished, verdict.retry, verdict.n_error) == (True, 1, 3)
    # The changed shard is done anew: its first attempts are its only ones.
    samples = {row["sample_id"]: row for row in rows(planned.folder, "samples")}
    assert (samples["2"]["response"], samples["2"]["attempts"]) == ("new", 1)
    assert tried.count("2") == tried.count("x") == 1
    assert tried.count("8") == tried.count("9") == 2
    assert (samples["8"]["status"], samples["9"]["status"]) == ("ok", "error")
    assert (samples["4"]["status"], samples["4"]["attempts"]) == ("ok", 2)
    assert leftovers(planned.folder) == []


def test_published_files_that_vanished_are_done_again_as_a_whole(folder: Path) -> None:
    run_with(config_for(folder), "old", FAILING)
    output = planned_run(config_for(folder)).folder
    output.delete("spans/shard-00000.parquet")
    verdict, worker = run_with(retrying(folder), "new", STILL_FAILING)
    assert (verdict.finished, verdict.n_error, len(worker.done)) == (True, 3, 4)
    assert_whole(output)


def test_errors_that_are_retried_do_not_stop_the_retry(tmp_path: Path) -> None:
    ids = [str(number) for number in range(8)]
    write_input(tmp_path / "input", a=ids)
    limits = {"min_rows_to_stop": 2, "chunk_samples": 2}
    first, _ = run_with(config_for(tmp_path, run=limits), "old", dict.fromkeys(ids, "internal"))
    assert (first.finished, first.stopped_early) == (False, True)
    config = config_for(tmp_path, run={**limits, "retry": "errors"})
    verdict, _ = run_with(config, "new", {})
    assert (verdict.finished, verdict.exit_code, verdict.n_error) == (True, 0, 0)
    assert verdict.n_mended == 2
    attempts = [row["attempts"] for row in rows(planned_run(config).folder, "samples")]
    assert attempts == [2, 2, 1, 1, 1, 1, 1, 1]


def test_file_with_other_errors_than_its_manifest_counts_is_refused(folder: Path) -> None:
    run_with(config_for(folder), "old", FAILING)
    output = planned_run(config_for(folder)).folder
    name = manifest_name(0)
    manifest = json.loads(output.read(name))
    manifest["by_code"]["media_missing"] = 2
    output.write(name, json.dumps(manifest).encode())
    with pytest.raises(
        RunError, match=r"3 rows, 2 of them .* counts 3 and 3; delete .*00000\.json"
    ):
        run_with(retrying(folder), "new", {})


def test_object_store_gives_the_same_output(folder: Path) -> None:
    """Any fsspec filesystem; here one in memory, whose files are not renamed."""
    run_with(config_for(folder), "old", FAILING)
    run_with(retrying(folder), "new", STILL_FAILING)
    memory = {"output": {"path": f"memory:/{folder}/output"}}
    run_with(config_for(folder, **memory), "old", FAILING)
    run_with(retrying(folder, **memory), "new", STILL_FAILING)
    local, remote = (
        planned_run(retrying(folder)).folder,
        planned_run(retrying(folder, **memory)).folder,
    )
    assert parquet_files(local) == parquet_files(remote)
    assert leftovers(remote) == []
