"""Recurations: equal results, changed settings, interrupts and faults."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from omnitrace_core.errors import RunError
from pipeline.commands.summary import recuration_text
from pipeline.driver.run import run
from pipeline.recuration.plan import Recuration, plan_recuration
from pipeline.recuration.recurate_run import run_recuration
from pipeline.run_folder.manifests import read_manifest, read_manifests, write_manifest
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.stored_shard import read_shard
from pipeline.run_folder.verdict import ExitCode, is_finished
from pipeline.storage.folder import Folder
from stages.arrow.stored_chunk import StoredChunk
from tests.pipeline.made_runs import config_for, planned_run, rows
from tests.pipeline.traced_runs import stages_of, traced_run, write_corpus

BOTH: dict[str, Any] = {"signals": ["attmean", "attraw"]}
Row = dict[str, Any]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PlannedRun:
    """A run of ten samples in four shards, two signals."""
    return traced_run(tmp_path_factory.mktemp("made"), trace=BOTH)


def _again(planned: PlannedRun, dest: Path, *overrides: str) -> Recuration:
    """Curate a run again in this process."""
    done = plan_recuration(planned.folder.root, str(dest), overrides)
    assert run_recuration(done, workers=1).exit_code == 0
    return done


def _bytes(folder: Folder, table: str) -> dict[str, bytes]:
    return {name: folder.read(f"{table}/{name}") for name in folder.names(table)}


def _without(row: Row, *names: str) -> Row:
    return {key: value for key, value in row.items() if key not in names}


def test_same_settings_give_the_same_bytes(source: PlannedRun, tmp_path: Path) -> None:
    done = _again(source, tmp_path / "dest")
    for table in ("spans", "traces"):
        assert _bytes(done.folder, table) == _bytes(source.folder, table)
    for old, new in zip(rows(source.folder, "samples"), rows(done.folder, "samples"), strict=True):
        assert _without(old, "timings") == _without(new, "timings")
        old_s, new_s = old["timings"].pop("curate_s"), new["timings"].pop("curate_s")
        assert old["timings"] == new["timings"]
        assert (old_s is None) == (new_s is None)


def test_destination_has_the_files_of_a_run(source: PlannedRun, tmp_path: Path) -> None:
    done = _again(source, tmp_path / "dest", "curation.pools=per_modality")
    # The numbers are those of the source, which retires them.
    names = [name for name in source.folder.tree("") if name != "_retired.json"]
    assert done.folder.tree("") == names
    manifests, before = read_manifests(done.folder), read_manifests(source.folder)
    for name, manifest in manifests.items():
        old = before[name]
        assert (manifest.n_rows, manifest.n_ok, manifest.n_error, manifest.by_code) == (
            old.n_rows,
            old.n_ok,
            old.n_error,
            old.by_code,
        )
        assert manifest.fingerprint == done.plan.fingerprint != old.fingerprint
    content = json.loads(done.folder.read("run.json"))
    assert content["config"]["output"]["path"] == str(tmp_path / "dest")
    assert content["config"]["curation"]["pools"] == "per_modality"
    assert content["curated_from"]["run_id"] == source.run_id
    assert content["curated_from"]["changed"] == {
        "curation.pools": {"from": "joint", "to": "per_modality"}
    }
    verdict = json.loads(done.folder.read("verdict.json"))
    assert (verdict["exit_code"], verdict["n_rows"], verdict["n_ok"]) == (0, 10, 8)
    for row in rows(done.folder, "samples"):
        changed = row["fingerprint"] == done.plan.fingerprint
        assert changed == (row["status"] == "ok")


def test_old_settings_give_the_old_spans_back(source: PlannedRun, tmp_path: Path) -> None:
    """The result can be curated again."""
    first = _again(source, tmp_path / "one", "curation.gamma=1", "spans.level=clause")
    assert _bytes(first.folder, "spans") != _bytes(source.folder, "spans")
    second = plan_recuration(
        first.folder.root, str(tmp_path / "two"), ["curation.gamma=2", "spans.level=sentence"]
    )
    run_recuration(second, workers=1)
    for table in ("spans", "traces"):
        assert _bytes(second.folder, table) == _bytes(source.folder, table)


def test_chunks_and_row_groups_have_the_sizes_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a later start of the run used another chunk size for the rest."""
    write_corpus(tmp_path)
    monkeypatch.setattr("pipeline.run_folder.table_files.ROW_GROUP_BYTES", 2000)
    planned = planned_run(config_for(tmp_path, run={"chunk_samples": 3}))
    execute = stages_of(planned)
    interrupted = run(planned, lambda chunks: execute(chunks[:2]))
    assert interrupted.n_published == 2
    later = planned_run(config_for(tmp_path, run={"chunk_samples": 1}))
    assert run(later, stages_of(later)).exit_code == 0
    assert later.folder.root == planned.folder.root
    cuts = [item.chunk_samples for item in read_manifests(later.folder).values()]
    assert sorted(cuts) == [1, 1, 3, 3]
    done = _again(later, tmp_path / "dest")
    for table in ("spans", "traces"):
        assert _bytes(done.folder, table) == _bytes(later.folder, table)


CHANGES: dict[str, tuple[list[str], Row]] = {
    "preset": (["curation.preset=paper"], {"curation": {"preset": "paper"}}),
    "peaks": (
        ["trace.projection=peak", "curation.coverage=0.5", "curation.pos_weighting=false"],
        {
            "trace": {**BOTH, "projection": "peak"},
            "curation": {"coverage": 0.5, "pos_weighting": False},
        },
    ),
    "turned": (
        ["trace.signals=[attraw, attmean]", "units.instructions=include"],
        {"trace": {"signals": ["attraw", "attmean"]}, "units": {"instructions": "include"}},
    ),
    "one signal": (["trace.signals=[attraw]"], {"trace": {"signals": ["attraw"]}}),
    "clauses": (
        ["spans.level=clause", "trace.store=none"],
        {"spans": {"level": "clause"}, "trace": {**BOTH, "store": "none"}},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_result_equals_a_new_run_with_these_settings(
    source: PlannedRun, tmp_path: Path, name: str
) -> None:
    overrides, sections = CHANGES[name]
    done = _again(source, tmp_path / "dest", *overrides)
    # A new run over the same input.
    config = config_for(tmp_path, **{"trace": BOTH, **sections})
    config = config.model_copy(update={"input": source.config.input})
    fresh = planned_run(config)
    run(fresh, stages_of(fresh))
    assert done.config.model_dump(exclude={"output", "model"}) == fresh.resolved_config.model_dump(
        exclude={"output", "model"}
    )
    assert _bytes(done.folder, "spans") == _bytes(fresh.folder, "spans")
    assert _bytes(done.folder, "traces") == _bytes(fresh.folder, "traces")
    for old, new in zip(rows(fresh.folder, "samples"), rows(done.folder, "samples"), strict=True):
        assert _without(old, "timings", "fingerprint") == _without(new, "timings", "fingerprint")
        fallback = [note for note in new["notes"] if note.startswith("fallback")]
        assert len(fallback) == (new["sample_id"] == "German")


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}


def test_rerun_does_nothing(source: PlannedRun, tmp_path: Path) -> None:
    first = _again(source, tmp_path / "dest")
    before = _state(tmp_path / "dest")
    again = plan_recuration(source.folder.root, str(tmp_path / "dest"))
    assert is_finished(again)
    assert run_recuration(again) == run_recuration(first)
    assert _state(tmp_path / "dest") == before


def test_only_missing_shards_are_done(source: PlannedRun, tmp_path: Path) -> None:
    done = _again(source, tmp_path / "dest")
    spans = _bytes(done.folder, "spans")
    done.folder.delete("_manifests/shard-00001.json")
    done.folder.write("spans/shard-00001.parquet", b"half of it")
    before = _state(tmp_path / "dest" / "spans")
    assert not is_finished(plan_recuration(source.folder.root, str(tmp_path / "dest")))
    assert _bytes(_again(source, tmp_path / "dest").folder, "spans") == spans
    changed = {
        Path(path).name
        for path, state in _state(tmp_path / "dest" / "spans").items()
        if before[path] != state
    }
    assert changed == {"shard-00001.parquet"}


def test_interrupt_leaves_an_incomplete_verdict(
    source: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan_recuration(source.folder.root, str(tmp_path / "dest"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.recuration.recurate_run.recurate_shard", interrupt)
        verdict = run_recuration(planned, workers=1)
    assert (verdict.exit_code, verdict.finished) == (ExitCode.INCOMPLETE, False)
    assert "run the same command again to finish the missing work" in verdict.reason
    _again(source, tmp_path / "dest")


def test_other_settings_replace_the_earlier_result(source: PlannedRun, tmp_path: Path) -> None:
    _again(source, tmp_path / "dest")
    done = _again(source, tmp_path / "dest", "trace.store=none", "curation.gamma=0")
    assert done.folder.names("traces") == []
    assert {span["row_key"] for span in rows(done.folder, "spans")} == {
        span["row_key"] for span in rows(source.folder, "spans")
    }


def test_crash_while_other_settings_replace_the_earlier_result(
    source: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _again(source, tmp_path / "dest")
    spans = _bytes(first.folder, "spans")

    def die(*_: object, **__: object) -> None:
        raise OSError("disk full")

    other = plan_recuration(source.folder.root, str(tmp_path / "dest"), ["spans.level=clause"])
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.recuration.shard.write_shard_manifest", die)
        with pytest.raises(OSError, match="disk full"):
            run_recuration(other, workers=1)
    # A file of the other settings is left, but no manifest declares it final.
    assert {manifest.key for manifest in read_manifests(first.folder).values()} == {""}
    assert _bytes(_again(source, tmp_path / "dest").folder, "spans") == spans


def test_run_that_is_not_finished(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    planned = planned_run(config_for(tmp_path))
    execute = stages_of(planned)
    run(planned, lambda chunks: execute(chunks[:2]))
    half = plan_recuration(planned.folder.root, str(tmp_path / "dest"))
    assert "the run is not finished" in recuration_text(half)
    verdict = run_recuration(half, workers=1)
    assert (verdict.exit_code, verdict.finished, verdict.n_rows) == (4, False, 4)
    assert "is not finished; run the same command again when it is" in verdict.reason
    run(planned, execute)
    done = _again(planned, tmp_path / "dest")
    assert _bytes(done.folder, "spans") == _bytes(planned.folder, "spans")


def test_shard_that_is_being_replaced_is_left_out(tmp_path: Path) -> None:
    """Its files may come from two tracings, which cannot be seen in them."""
    planned = traced_run(tmp_path / "made")
    manifests = read_manifests(planned.folder)
    first = manifests["a.parquet"]
    write_manifest(planned.folder, replace(first, key=""), lambda: None)
    run = plan_recuration(planned.folder.root, str(tmp_path / "dest")).run
    assert first.shard not in run.manifests
    assert len(run.manifests) == len(manifests) - 1


def test_worker_processes_give_the_same_result(source: PlannedRun, tmp_path: Path) -> None:
    planned = plan_recuration(source.folder.root, str(tmp_path / "dest"))
    assert run_recuration(planned, workers=2).exit_code == 0
    assert _bytes(planned.folder, "spans") == _bytes(source.folder, "spans")
    assert read_manifests(planned.folder, with_chunks=False) == planned.manifests


def test_object_store_gives_the_same_output(source: PlannedRun, tmp_path: Path) -> None:
    remote = Folder("memory://recurate/run")
    for name in source.folder.tree(""):
        remote.write(name, source.folder.read(name))
    planned = plan_recuration(remote.root, "memory://recurate/dest", ["curation.gamma=1"])
    assert run_recuration(planned, workers=1).exit_code == 0
    here = _again(source, tmp_path / "dest", "curation.gamma=1")
    for table in ("spans", "traces"):
        assert _bytes(planned.folder, table) == _bytes(here.folder, table)


def test_no_model_and_no_tagger_are_loaded(source: PlannedRun, tmp_path: Path) -> None:
    """Nor is Ray, and the model's folder may be gone."""
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        f"end = main(['curate', {source.folder.root!r}, {str(tmp_path / 'dest')!r}, "
        "'curation.preset=paper', '--workers=1'])\n"
        "heavy = ['torch', 'transformers', 'ray', 'spacy', 'av', 'decord', 'librosa']\n"
        "sys.exit(end or ', '.join(name for name in heavy if name in sys.modules) or 0)\n"
    )
    model = Path(source.config.model.path)
    model.rename(model.with_name("away"))
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
    finally:
        model.with_name("away").rename(model)
    assert done.returncode == 0, done.stderr
    assert "10 samples: 8 ok, 2 errors" in done.stdout


def test_sample_that_fails_becomes_an_error_and_other_rows_are_kept(
    source: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnitrace_core.attribution import curation

    def break_on_long(cases: Sequence[Any], **more: Any) -> Any:
        if any(len(case.fold.markup) > 9 for case in cases):
            raise IndexError("too long")
        return curation.curate_many(cases, **more)

    monkeypatch.setattr("stages.records.curator.curate_many", break_on_long)
    planned = plan_recuration(source.folder.root, str(tmp_path / "dest"))
    verdict = run_recuration(planned, workers=1)
    before = {row["row_key"]: row for row in rows(source.folder, "samples")}
    failed = {row["row_key"] for row in before.values() if len(row["response"] or "") > 60}
    assert len(failed) == 3
    assert verdict.by_stage["curate"] == 3
    assert (verdict.exit_code, verdict.n_rows, verdict.n_error) == (0, 10, 5)
    for row in rows(planned.folder, "samples"):
        old = before[row["row_key"]]
        if row["row_key"] in failed:
            assert (row["status"], row["error_stage"]) == ("error", "curate")
            assert row["message"] == "IndexError: too long"
            assert row["response"] == old["response"]
        else:
            assert _without(row, "timings") == _without(old, "timings")
    for table in ("spans", "traces"):
        kept = [row for row in rows(source.folder, table) if row["row_key"] not in failed]
        assert rows(planned.folder, table) == kept


@pytest.fixture
def copied(source: PlannedRun, tmp_path: Path) -> Callable[[], Recuration]:
    """The run's folder copied to `tmp_path`/run, to be damaged."""
    shutil.copytree(source.folder.root, tmp_path / "run")
    return lambda: plan_recuration(str(tmp_path / "run"), str(tmp_path / "dest"))


def test_missing_file_of_the_run_is_an_error(
    copied: Callable[[], Recuration], tmp_path: Path
) -> None:
    (tmp_path / "run/traces/shard-00001.parquet").unlink()
    # Also in another process.
    with pytest.raises(RunError, match=r"traces/shard-00001\.parquet is missing, though its"):
        run_recuration(copied(), workers=2)
    content = json.loads((tmp_path / "dest/verdict.json").read_text())
    assert (content["exit_code"], content["finished"]) == (1, False)
    assert not list((tmp_path / "dest").rglob("*.partial"))


def test_mixed_files_of_two_shards_are_an_error(
    copied: Callable[[], Recuration], tmp_path: Path
) -> None:
    folder = tmp_path / "run/spans"
    shutil.copy(folder / "shard-00001.parquet", folder / "shard-00000.parquet")
    run = Folder(str(tmp_path / "run"))
    manifest = read_manifest(run, 0)
    assert manifest is not None
    n_rows = pq.read_metadata(folder / "shard-00001.parquet").num_rows
    files = {**manifest.files, "spans/shard-00000.parquet": n_rows}
    write_manifest(run, replace(manifest, files=files, sizes={}), lambda: None)
    with pytest.raises(RunError, match=r"has rows of b\.parquet:0, which samples/ does not have"):
        run_recuration(copied(), workers=1)


@pytest.mark.parametrize("table", ["samples", "spans", "traces"])
@pytest.mark.parametrize("sizes_known", [True, False])
def test_source_whose_file_was_changed_is_refused(
    copied: Callable[[], Recuration], tmp_path: Path, table: str, sizes_known: bool
) -> None:
    path = tmp_path / "run" / table / "shard-00000.parquet"
    content = pq.read_table(path)
    pq.write_table(content.slice(0, len(content) - 1), path)
    said = rf"{table}/shard-00000\.parquet has \d+ bytes, and \d+ were written; restore it, or"
    if not sizes_known:
        run = Folder(str(tmp_path / "run"))
        for manifest in read_manifests(run).values():
            write_manifest(run, replace(manifest, sizes={}), lambda: None)
        said = rf"{table}/shard-00000\.parquet has \d+ rows?, and its manifest counts \d+"
    with pytest.raises(RunError, match=said):
        run_recuration(copied(), workers=1)


@pytest.mark.parametrize("overrides", [["curation.gamma=1"], ["spans.level=clause"]])
def test_runs_of_older_versions_do_not_say_what_is_uncovered(
    source: PlannedRun, copied: Callable[[], Recuration], tmp_path: Path, overrides: list[str]
) -> None:
    """Their files lack the columns; the new ones are null, and the rest is as it was."""
    run = Folder(str(tmp_path / "run"))
    for table, column in (("spans", "mass_uncovered"), ("traces", "uncovered")):
        for path in (tmp_path / "run" / table).iterdir():
            pq.write_table(pq.read_table(path).drop_columns([column]), path)
    for manifest in read_manifests(run).values():
        write_manifest(run, replace(manifest, sizes={}), lambda: None)
    done = plan_recuration(run.root, str(tmp_path / "dest"), overrides)
    assert run_recuration(done, workers=1).exit_code == 0
    fresh = _again(source, tmp_path / "fresh", *overrides)
    spans, expected = rows(done.folder, "spans"), rows(fresh.folder, "spans")
    assert {row["mass_uncovered"] for row in spans} == {None}
    assert {row["mass_uncovered"] for row in expected} == {0.0}
    assert [_without(row, "mass_uncovered") for row in spans] == [
        _without(row, "mass_uncovered") for row in expected
    ]


def _retried(planned: PlannedRun, folder: Path, trace: dict[str, Any]) -> PlannedRun:
    """The run after a retry for which the missing picture has appeared."""
    Image.new("RGB", (90, 60), "blue").save(folder / "none.png")
    retried = planned_run(config_for(folder, trace=trace, run={"retry": "errors"}))
    assert retried.folder.root == planned.folder.root
    assert run(retried, stages_of(retried)).n_mended == 1
    return retried


def test_retried_shard_is_like_one_that_never_failed_and_is_curated_again(tmp_path: Path) -> None:
    trace = {**BOTH, "store": "positions", "heatmaps": True}
    planned = traced_run(tmp_path, trace=trace)
    done = _again(planned, tmp_path / "dest")
    assert is_finished(done)
    n_spans = len(rows(done.folder, "spans"))
    retried = _retried(planned, tmp_path, trace)
    whole = planned_run(config_for(tmp_path, trace=trace, output={"path": str(tmp_path / "whole")}))
    run(whole, stages_of(whole))
    for table in ("spans", "traces", "heatmaps"):
        assert _bytes(retried.folder, table) == _bytes(whole.folder, table)
    for old, new in zip(
        rows(whole.folder, "samples"), rows(retried.folder, "samples"), strict=True
    ):
        assert _without(old, "timings", "attempts") == _without(new, "timings", "attempts")
        assert new["attempts"] == old["attempts"] + (new["sample_id"] == "missing")
    again = plan_recuration(planned.folder.root, str(tmp_path / "dest"))
    assert not is_finished(again)
    left = [shard.name for shard in again.plan.shards if not again.is_published(shard)]
    assert left == ["b.parquet"]
    run_recuration(again, workers=1)
    assert len(rows(again.folder, "spans")) > n_spans
    assert _bytes(again.folder, "spans") == _bytes(retried.folder, "spans")


def test_shard_that_a_retry_replaces_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = traced_run(tmp_path, trace=BOTH)
    before = plan_recuration(planned.folder.root, str(tmp_path / "dest"))

    def read_and_retry(*arguments: Any) -> Iterator[StoredChunk]:
        for number, batch in enumerate(read_shard(*arguments)):
            yield batch
            if number == 0 and not (tmp_path / "none.png").exists():
                _retried(planned, tmp_path, BOTH)

    monkeypatch.setattr("pipeline.recuration.shard.read_shard", read_and_retry)
    with pytest.raises(RunError, match=r"shard-0000\d\.json changed while its shard was read"):
        run_recuration(before, workers=1)
    assert _again(planned, tmp_path / "dest").run.manifests["b.parquet"].retry == 1
