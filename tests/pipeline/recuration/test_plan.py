"""What `omnitrace curate` accepts, and what it refuses before any work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.errors import ConfigError
from pipeline.cli import main
from pipeline.commands.summary import recuration_text
from pipeline.recuration.plan import plan_recuration
from pipeline.recuration.recurate_run import run_recuration
from pipeline.run_folder.planned_run import PlannedRun
from stages.arrow.table_schema import TABLES
from tests.pipeline.made_runs import rows
from tests.pipeline.traced_runs import traced_run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PlannedRun:
    """A run that keeps units and heat maps."""
    trace = {"signals": ["attmean", "attraw"], "heatmaps": True}
    return traced_run(tmp_path_factory.mktemp("made"), trace=trace)


REFUSED: dict[str, str] = {
    "model.path=elsewhere": r"model\.path='elsewhere' .* needs a new run: curation begins after",
    "decode.max_new_tokens=3": r"decode\.max_new_tokens=3 \(the run had 256\) needs a new run",
    "media.video_fps=1": r"media\.video_fps=1\.0 .* needs a new run",
    "input.path=elsewhere": r"input\.path='elsewhere' .* needs a new run",
    "run.chunk_samples=7": r"run\.chunk_samples=7 .* needs a new run",
    "trace.enabled=false": r"heatmaps needs traces; set trace\.enabled=true",
    "output.path=elsewhere": r"output\.path is set by DEST",
    "trace.signals=[attmean, attnorm]": r"did not trace attnorm, .*stored: attmean, attraw",
    "units.image=grid": r"units\.image='grid' .* needs a new run, with trace\.store=positions",
    "asr.engine=given": r"asr\.engine='given' .* kept trace\.store=units",
    "trace.store=positions": r"trace\.store=positions needs a new run",
    "spans.level=clause": r"stored heat maps do not fit another spans\.level.*heatmaps=false",
    "curation.pos_weighting=false": r"do not fit another curation\.pos_weighting",
    "trace.signals=[attraw]": r"do not fit another trace\.signals",
    "curation.gama=1": r"curation\.gama: unknown key; did you mean gamma\?",
    "curation.gamma": r"is not of the form key=value",
}


@pytest.mark.parametrize("override", REFUSED)
def test_settings_that_cannot_change(source: PlannedRun, tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[override]):
        plan_recuration(source.folder.root, str(tmp_path / "dest"), [override])
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["spans.level=clause", "trace.heatmaps=false"],
        ["trace.signals=[attraw]", "trace.heatmaps=false"],
        ["trace.signals=[attmean]"],
        ["trace.store=none", "trace.projection=peak", "units.instructions=include"],
        ["run.max_error_fraction=0.1"],
    ],
)
def test_settings_that_can_change(
    source: PlannedRun, tmp_path: Path, overrides: Sequence[str]
) -> None:
    planned = plan_recuration(source.folder.root, str(tmp_path / "dest"), overrides)
    same = "max_error" in overrides[0]
    assert (planned.plan.fingerprint == source.plan.fingerprint) == same


def test_fingerprint_depends_on_the_changes_alone(source: PlannedRun, tmp_path: Path) -> None:
    def fingerprint(*overrides: str) -> str:
        return plan_recuration(
            source.folder.root, str(tmp_path / "dest"), overrides
        ).plan.fingerprint

    assert fingerprint("curation.gamma=2.0", "curation.pools=joint") == source.plan.fingerprint
    one = fingerprint("curation.gamma=1", "curation.alpha=0.5")
    assert one == fingerprint("curation.alpha=0.5", "curation.gamma=1.0")
    assert len({one, source.plan.fingerprint, fingerprint("curation.gamma=1")}) == 3


def test_presets_can_be_changed_both_ways(source: PlannedRun, tmp_path: Path) -> None:
    paper = plan_recuration(
        source.folder.root, str(tmp_path / "paper"), ["curation.preset=paper", "curation.alpha=0.5"]
    )
    assert (paper.config.curation.pools, paper.config.curation.pool_min) == ("per_modality", 0)
    run_recuration(paper, workers=1)
    back = plan_recuration(
        str(tmp_path / "paper"), str(tmp_path / "back"), ["curation.preset=default"]
    )
    assert (back.config.curation.pools, back.config.curation.pool_min) == ("joint", 0.05)
    # Settings that differ from the preset are kept.
    assert back.config.curation.alpha == 0.5


def test_run_may_be_named_by_a_folder_above(source: PlannedRun, tmp_path: Path) -> None:
    output = source.identity.output.root
    assert plan_recuration(output, str(tmp_path / "dest")).run.folder.root == source.folder.root
    with pytest.raises(ConfigError, match=r"holds no run \(no run\.json\); give a run's folder"):
        plan_recuration(str(tmp_path / "nowhere"), str(tmp_path / "dest"))
    for name in ("one", "two"):
        run_recuration(plan_recuration(output, str(tmp_path / "both" / name)), workers=1)
    with pytest.raises(ConfigError, match=r"holds 2 runs; name one of them:\n.*both/one\n.*two"):
        plan_recuration(str(tmp_path / "both"), str(tmp_path / "dest"))


def test_refused_destinations(source: PlannedRun, tmp_path: Path) -> None:
    run, output = source.folder.root, source.identity.output.root
    for dest in (run, f"{run}/again", output, f"{output}/again", str(Path(output).parent)):
        with pytest.raises(ConfigError, match=r"must not contain each other"):
            plan_recuration(output, dest)
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(ConfigError, match=r"must not contain each other"):
        plan_recuration(run, str(tmp_path / "link" / "again"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"is a file; give a folder"):
        plan_recuration(run, str(tmp_path / "file"))
    (tmp_path / "full" / "spans").mkdir(parents=True)
    (tmp_path / "full" / "spans" / "mine.parquet").write_text("")
    with pytest.raises(ConfigError, match=r"holds tables without a run\.json"):
        plan_recuration(run, str(tmp_path / "full"))
    locked = tmp_path / "file" / "below"
    with pytest.raises(ConfigError, match=r"DEST .* cannot be written"):
        run_recuration(plan_recuration(run, str(locked)))


def test_destination_that_holds_another_run(source: PlannedRun, tmp_path: Path) -> None:
    other = traced_run(tmp_path)
    for dest in (other.folder.root, str(tmp_path / "of_other")):
        if dest != other.folder.root:
            run_recuration(plan_recuration(other.folder.root, dest), workers=1)
        with pytest.raises(ConfigError, match=r"was not curated from r\w+ of 2026-01-31"):
            plan_recuration(source.folder.root, dest)


@pytest.mark.parametrize("trace", [{"store": "none"}, {"enabled": False}])
def test_run_without_traces(tmp_path: Path, trace: dict[str, Any]) -> None:
    planned = traced_run(tmp_path, trace=trace)
    with pytest.raises(ConfigError, match=r"has no traces \(trace\.\w+=\w+\).*run it with"):
        plan_recuration(planned.folder.root, str(tmp_path / "dest"))


def test_run_of_a_newer_version(tmp_path: Path) -> None:
    planned = traced_run(tmp_path)
    content = json.loads(planned.folder.read("run.json"))
    planned.folder.write("run.json", json.dumps({**content, "schema_version": 99}).encode())
    with pytest.raises(ConfigError, match=r"schema version 99, and this OmniTrace knows 2"):
        plan_recuration(planned.folder.root, str(tmp_path / "dest"))
    planned.folder.write("run.json", b"{}")
    with pytest.raises(ConfigError, match=r"run\.json does not hold the settings of a run"):
        plan_recuration(planned.folder.root, str(tmp_path / "dest"))


def test_run_of_the_first_version(tmp_path: Path) -> None:
    """Runs of version 1 have fewer columns, and manifests without sizes and totals."""
    planned = traced_run(tmp_path)
    for table in ("samples", "spans", "traces"):
        for path in Path(planned.folder.root, table).glob("*.parquet"):
            stored = pq.read_table(path, use_threads=False)
            for name in ("n_positions", "rows", "prompt"):
                if name in stored.column_names:
                    stored = stored.drop_columns([name])
            if table == "samples":
                stored = stored.set_column(
                    stored.column_names.index("media"), "media", _without_edges(stored["media"])
                )
            pq.write_table(stored, path)
    for path in Path(planned.folder.root, "_manifests").glob("*.json"):
        content = json.loads(path.read_text())
        for name in ("chunk_samples", "sizes", "totals"):
            del content[name]
        path.write_text(json.dumps({**content, "schema_version": 1}))
    content = json.loads(planned.folder.read("run.json"))
    del content["media_rules"]
    planned.folder.write("run.json", json.dumps({**content, "schema_version": 1}).encode())
    done = plan_recuration(planned.folder.root, str(tmp_path / "dest"))
    assert run_recuration(done, workers=1).n_ok == 8
    for table in ("spans", "traces"):
        assert (
            rows(done.folder, table)
            == pq.read_table(
                f"{planned.folder.root}/{table}", use_threads=False, schema=TABLES[table]
            ).to_pylist()
        )


def _without_edges(media: pa.ChunkedArray) -> pa.ChunkedArray:
    info = media.type.value_type
    fields = [field for field in info if "edges" not in field.name and "sound_" not in field.name]
    return pa.chunked_array([pa.array(media.to_pylist(), pa.list_(pa.struct(fields)))])


def test_dry_run_prints_everything_and_writes_nothing(
    source: PlannedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "dest"
    command = ["curate", source.folder.root, str(dest), "--dry-run", "curation.gamma=1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "gamma: 1.0" in printed
    assert "changes curation.gamma: 2.0 -> 1.0" in printed
    assert "reads   10 samples in 4 shards: samples, spans, heatmaps, traces" in printed
    assert f"writes  samples, spans, traces, heatmaps to {dest}" in printed
    assert not dest.exists()


def test_command_and_its_exit_codes(
    source: PlannedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["curate", source.folder.root, str(tmp_path / "dest"), "--workers", "1"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "changes nothing: the spans will be those of the run, byte for byte" in first
    assert "10 samples: 8 ok, 2 errors" in first
    assert main(command) == 0
    assert "this run is finished: nothing to do" in capsys.readouterr().out
    assert main([*command, "run.max_error_fraction=0.1"]) == 4
    assert main([*command, "units.text=part"]) == 2
    assert "omnitrace: units.text='part'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*command[:-1], "0"])
    assert end.value.code == 2


def test_units_of_another_pipeline_are_noted(source: PlannedRun, tmp_path: Path) -> None:
    import omnitrace_core

    path = Path(omnitrace_core.__file__).with_name("assets") / "en_ud_small"
    overrides = [f"spans.pipeline={path}", "trace.heatmaps=false"]
    planned = plan_recuration(source.folder.root, str(tmp_path / "dest"), overrides)
    assert "units are not cut again; they are those of the old spans.pipeline" in recuration_text(
        planned
    )
    with pytest.raises(ConfigError, match=r"spans\.pipeline='none' cannot be loaded"):
        plan_recuration(
            source.folder.root,
            str(tmp_path / "dest"),
            ["spans.pipeline=none", "trace.heatmaps=false"],
        )
