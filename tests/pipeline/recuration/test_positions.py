"""Runs that kept positions: other units, new speech chunks and heat maps, without the model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.driver.run import run
from pipeline.recuration.plan import Recuration, plan_recuration
from pipeline.recuration.recurate_run import run_recuration
from pipeline.run_folder.planned_run import PlannedRun
from tests.core.media_files import audio_bytes, beep
from tests.pipeline.made_runs import config_for, planned_run, rows
from tests.pipeline.traced_runs import stages_of, traced_run
from tests.stages.chunks import user, write_shard

KEPT: dict[str, Any] = {"signals": ["attmean", "attraw"], "store": "positions"}
Row = dict[str, Any]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PlannedRun:
    """A run of ten samples in four shards that keeps positions."""
    return traced_run(tmp_path_factory.mktemp("positions"), trace=KEPT)


def _again(planned: PlannedRun | Recuration, dest: Path, *overrides: str) -> Recuration:
    done = plan_recuration(planned.folder.root, str(dest), overrides)
    assert run_recuration(done, workers=1).exit_code == 0
    return done


def _fresh(planned: PlannedRun, folder: Path, **sections: Any) -> PlannedRun:
    """A new run over the same input with these settings."""
    config = config_for(folder, **{"trace": KEPT, **sections})
    fresh = planned_run(config.model_copy(update={"input": planned.config.input}))
    run(fresh, stages_of(fresh))
    return fresh


def _by_sample(rows: list[Row], *left_out: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        kept = {name: value for name, value in row.items() if name not in left_out}
        found.setdefault(row["sample_id"], []).append(kept)
    return found


def test_positions_are_unchanged(source: PlannedRun, tmp_path: Path) -> None:
    for overrides in ([], ["trace.signals=[attraw, attmean]", "curation.gamma=1"]):
        dest = tmp_path / f"dest{len(overrides)}"
        done = _again(source, dest, *overrides)
        old, new = (_by_sample(rows(item.folder, "traces")) for item in (source, done))
        signal = done.config.trace.signals
        for name, traces in new.items():
            assert [row["signal"] for row in traces] == list(signal)
            assert sorted(traces, key=lambda row: row["signal"]) == old[name]
            assert all(row["n_positions"] * row["n_tokens"] == len(row["rows"]) for row in traces)


def test_other_units_equal_those_of_a_new_run(source: PlannedRun, tmp_path: Path) -> None:
    """Cells that are finer than the positions may hold none of them, which is noted."""
    overrides = ["units.image=grid", "units.grid=[9, 9]", "units.text=part", "units.bin_s=0.5"]
    units = {"image": "grid", "grid": [9, 9], "text": "part", "bin_s": 0.5}
    done, fresh = (
        _again(source, tmp_path / "dest", *overrides),
        _fresh(source, tmp_path, units=units),
    )
    for table in ("spans", "traces"):
        for file in fresh.folder.names(table):
            assert done.folder.read(f"{table}/{file}") == fresh.folder.read(f"{table}/{file}")
    left_out = ("timings", "fingerprint")
    old, new = (_by_sample(rows(item.folder, "samples"), *left_out) for item in (fresh, done))
    assert new == old
    kinds = {unit["kind"] for samples in new.values() for unit in samples[0]["units"] or ()}
    assert kinds == {"text_part", "image_cell", "audio_bin"}
    notes = [note for note in new["picture"][0]["notes"] if "hold no token" in note]
    assert len(notes) == 1
    # With coarser units the note is gone.
    back = _again(done, tmp_path / "back", "units.image=whole")
    assert _by_sample(rows(back.folder, "samples"))["picture"][0]["notes"] == ["made up"]


def test_speech_segments_of_the_samples_are_used(source: PlannedRun, tmp_path: Path) -> None:
    done = _again(source, tmp_path / "dest", "units.audio=chunks", "asr.engine=given")
    samples = {name: item[0] for name, item in _by_sample(rows(done.folder, "samples")).items()}
    chunks = [unit for unit in samples["sound"]["units"] if unit["kind"] == "audio_chunk"]
    assert [(unit["start_s"], unit["end_s"], unit["transcript"]) for unit in chunks] == [
        (0.4, 1.1, "here"),
        (1.9, 2.6, ""),
    ]
    # This sample has no segments and becomes an error; all others are kept.
    inline = samples["inline"]
    assert (inline["error_stage"], inline["error_code"]) == ("curate", "speech_error")
    assert "asr.engine=given needs segments" in inline["message"]
    fresh = _fresh(source, tmp_path, units={"audio": "chunks"}, asr={"engine": "given"})
    for table in ("spans", "traces"):
        assert rows(done.folder, table) == rows(fresh.folder, table)


def test_known_speech_is_not_searched_again(source: PlannedRun, tmp_path: Path) -> None:
    first = _fresh(source, tmp_path, units={"audio": "chunks"}, asr={"engine": "given"})
    # Another image grid needs no new search for speech.
    done = _again(first, tmp_path / "grid", "units.image=grid")
    before, after = (_by_sample(rows(item.folder, "samples")) for item in (first, done))
    assert [u for u in after["sound"][0]["units"] if u["modality"] == "audio"] == [
        u for u in before["sound"][0]["units"] if u["modality"] == "audio"
    ]
    assert after["inline"][0]["error_stage"] == "chunk_audio"
    assert after["inline"] == before["inline"]


def test_speech_that_is_partly_heard_is_noted_where_it_has_units(
    source: PlannedRun, tmp_path: Path
) -> None:
    note = "part 0: speech goes on outside what is heard; its transcript is whole"
    given = {"units": {"audio": "chunks"}, "asr": {"engine": "given"}}
    first = _fresh(source, tmp_path, **given, media={"max_heard_s": 0.8})
    grid = _again(first, tmp_path / "grid", "units.image=grid")
    bins = _again(first, tmp_path / "bins", "units.audio=bins")
    chunks = _again(bins, tmp_path / "chunks", "units.audio=chunks")
    notes = [
        _by_sample(rows(item.folder, "samples"))["sound"][0]["notes"]
        for item in (first, grid, bins, chunks)
    ]
    assert [found.count(note) for found in notes] == [1, 1, 0, 1]


def test_sound_is_decoded_again_from_its_address(source: PlannedRun, tmp_path: Path) -> None:
    """With asr.engine=vad. Inline sound is not stored, and a file that changed is refused."""
    vad = ["units.audio=chunks", "asr.engine=vad"]
    done = _again(source, tmp_path / "dest", *vad)
    samples = {name: item[0] for name, item in _by_sample(rows(done.folder, "samples")).items()}
    inline = samples["inline"]
    assert (inline["error_code"], inline["error_stage"]) == ("media_missing", "curate")
    assert "part 0: its sound came inline" in inline["message"]
    assert "do not change units.audio, or run again" in inline["message"]
    # A beep is not speech.
    assert "part 0: no speech found, its sound is cut into time bins" in samples["sound"]["notes"]
    sound = Path(source.config.input.path).with_name("beep.wav")
    shutil.copy(sound, tmp_path / "kept.wav")
    try:
        content = bytearray(sound.read_bytes())
        content[-4:] = b"\x00\x00\x00\x3f"
        sound.write_bytes(content)
        changed = _again(source, tmp_path / "changed", *vad)
    finally:
        shutil.copy(tmp_path / "kept.wav", sound)
    row = _by_sample(rows(changed.folder, "samples"))["sound"][0]
    assert (row["error_code"], row["error_stage"]) == ("media_error", "curate")
    assert "is not the file that was traced" in row["message"]


def test_sound_is_read_again_by_its_complete_address(tmp_path: Path) -> None:
    """Its name has a query, which the tables do not show."""
    sound, path = tmp_path / "beep.wav?sig=x", tmp_path / "input" / "a.parquet"
    sound.write_bytes(audio_bytes(beep(1.0, at=(0.5,)), 16_000))
    part = {"type": "audio", "uri": f"file://{sound}"}
    parts = user(part, {"type": "text", "text": "What sounds?"})
    write_shard(path, [{"sample_id": "sound", "messages": [parts]}])
    planned = traced_run(tmp_path, trace=KEPT, run={"max_error_fraction": 1})
    (row,) = rows(planned.folder, "samples")
    assert row["media"][0]["uri"] == f"file://{tmp_path}/beep.wav"
    vad = ["units.audio=chunks", "asr.engine=vad"]
    (row,) = rows(_again(planned, tmp_path / "dest", *vad).folder, "samples")
    assert (row["status"], row["media"][0]["uri"]) == ("ok", f"file://{tmp_path}/beep.wav")
    path.unlink()
    (row,) = rows(_again(planned, tmp_path / "gone", *vad).folder, "samples")
    assert row["error_code"] == "media_missing"
    assert f"{path}, which was traced, is gone" in row["message"]


def test_heat_maps_from_positions(source: PlannedRun, tmp_path: Path) -> None:
    overrides = ["trace.heatmaps=true", "trace.store=units", "curation.pos_weighting=false"]
    done = _again(source, tmp_path / "dest", *overrides)
    trace = {**KEPT, "store": "units", "heatmaps": True}
    fresh = _fresh(source, tmp_path, trace=trace, curation={"pos_weighting": False})
    for table in ("spans", "traces", "heatmaps"):
        for name in fresh.folder.names(table):
            assert done.folder.read(f"{table}/{name}") == fresh.folder.read(f"{table}/{name}")
    maps = _by_sample(rows(done.folder, "heatmaps"))
    assert maps.keys() == {"picture", "again"}
    spans = _by_sample(rows(done.folder, "spans"))
    for name, pictures in maps.items():
        for span, heat in zip(spans[name], pictures, strict=True):
            assert heat["span_index"] == span["span_index"]
            seen = np.array(heat["patches"]).sum() * heat["scale"]
            assert seen == pytest.approx(span["mass_image"], abs=16 * heat["scale"])


def test_heat_maps_without_positions_are_copied(source: PlannedRun, tmp_path: Path) -> None:
    trace = {**KEPT, "store": "units", "heatmaps": True}
    drawn = _fresh(source, tmp_path, trace=trace)
    done = _again(drawn, tmp_path / "dest", "curation.gamma=1", "trace.signals=[attmean]")
    for name in drawn.folder.names("heatmaps"):
        assert done.folder.read(f"heatmaps/{name}") == drawn.folder.read(f"heatmaps/{name}")
    bare = _again(drawn, tmp_path / "bare", "trace.heatmaps=false")
    assert bare.folder.names("heatmaps") == []
    again = _again(source, tmp_path / "dest2", "trace.heatmaps=true")
    assert rows(again.folder, "heatmaps") == rows(drawn.folder, "heatmaps")
    gone = _again(source, tmp_path / "dest2")
    assert gone.folder.names("heatmaps") == []
