"""Runs that kept positions: other units, new speech chunks and heat maps, without the model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.driver.run import run
from pipeline.recuration.plan import Recuration, plan_recuration
from pipeline.recuration.run import run_recuration
from pipeline.run_folder.job import Job
from tests.pipeline.made_runs import config_for, job_for, rows
from tests.pipeline.traced_runs import stages_of, traced_run

KEPT: dict[str, Any] = {"signals": ["attmean", "attraw"], "store": "positions"}
Row = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run of ten samples in four shards that keeps positions."""
    return traced_run(tmp_path_factory.mktemp("positions"), trace=KEPT)


def _again(job: Job | Recuration, dest: Path, *overrides: str) -> Recuration:
    done = plan_recuration(job.folder.root, str(dest), overrides)
    assert run_recuration(done, workers=1).exit_code == 0
    return done


def _fresh(job: Job, folder: Path, **sections: Any) -> Job:
    """A new run over the same input with these settings."""
    config = config_for(folder, **{"trace": KEPT, **sections})
    fresh = job_for(config.model_copy(update={"input": job.config.input}))
    run(fresh, stages_of(fresh))
    return fresh


def _by_sample(rows: list[Row], *left_out: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        kept = {name: value for name, value in row.items() if name not in left_out}
        found.setdefault(row["sample_id"], []).append(kept)
    return found


def test_positions_stay_what_they_are(made: Job, tmp_path: Path) -> None:
    for overrides in ([], ["trace.signals=[attraw, attmean]", "curation.gamma=1"]):
        dest = tmp_path / f"dest{len(overrides)}"
        done = _again(made, dest, *overrides)
        old, new = (_by_sample(rows(item.folder, "traces")) for item in (made, done))
        signal = done.config.trace.signals
        for name, traces in new.items():
            assert [row["signal"] for row in traces] == list(signal)
            assert sorted(traces, key=lambda row: row["signal"]) == old[name]
            assert all(row["n_positions"] * row["n_tokens"] == len(row["rows"]) for row in traces)


def test_other_units_are_those_of_a_new_run(made: Job, tmp_path: Path) -> None:
    """Cells finer than the positions: some can get nothing, and a note says so."""
    overrides = ["units.image=grid", "units.grid=[9, 9]", "units.text=part", "units.bin_s=0.5"]
    units = {"image": "grid", "grid": [9, 9], "text": "part", "bin_s": 0.5}
    done, fresh = _again(made, tmp_path / "dest", *overrides), _fresh(made, tmp_path, units=units)
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
    # Back in coarser units it is gone.
    back = _again(done, tmp_path / "back", "units.image=whole")
    assert _by_sample(rows(back.folder, "samples"))["picture"][0]["notes"] == ["made up"]


def test_speech_that_the_samples_bring(made: Job, tmp_path: Path) -> None:
    done = _again(made, tmp_path / "dest", "units.audio=chunks", "asr.engine=given")
    samples = {name: item[0] for name, item in _by_sample(rows(done.folder, "samples")).items()}
    chunks = [unit for unit in samples["sound"]["units"] if unit["kind"] == "audio_chunk"]
    assert [(unit["start_s"], unit["end_s"], unit["transcript"]) for unit in chunks] == [
        (0.4, 1.1, "here"),
        (1.9, 2.6, ""),
    ]
    # It brought none; all others go on.
    inline = samples["inline"]
    assert (inline["error_stage"], inline["error_code"]) == ("curate", "speech_error")
    assert "asr.engine=given needs segments" in inline["message"]
    fresh = _fresh(made, tmp_path, units={"audio": "chunks"}, asr={"engine": "given"})
    for table in ("spans", "traces"):
        assert rows(done.folder, table) == rows(fresh.folder, table)


def test_known_speech_is_not_looked_for_again(made: Job, tmp_path: Path) -> None:
    first = _fresh(made, tmp_path, units={"audio": "chunks"}, asr={"engine": "given"})
    # Another image grid, from units alone; then other limits of speech, for which it is heard.
    done = _again(first, tmp_path / "grid", "units.image=grid")
    before, after = (_by_sample(rows(item.folder, "samples")) for item in (first, done))
    assert [u for u in after["sound"][0]["units"] if u["modality"] == "audio"] == [
        u for u in before["sound"][0]["units"] if u["modality"] == "audio"
    ]
    assert after["inline"][0]["error_stage"] == "chunk_audio"
    assert after["inline"] == before["inline"]


def test_sound_is_heard_again_where_it_lies(made: Job, tmp_path: Path) -> None:
    """By vad; the inline sound is not stored, and a file that changed is another one."""
    vad = ["units.audio=chunks", "asr.engine=vad"]
    done = _again(made, tmp_path / "dest", *vad)
    samples = {name: item[0] for name, item in _by_sample(rows(done.folder, "samples")).items()}
    inline = samples["inline"]
    assert (inline["error_code"], inline["error_stage"]) == ("media_missing", "curate")
    assert "part 0: its sound came inline" in inline["message"]
    # A beep is no speech.
    assert "part 0: no speech found, its sound is cut into time bins" in samples["sound"]["notes"]
    sound = Path(made.config.input.path).with_name("beep.wav")
    shutil.copy(sound, tmp_path / "kept.wav")
    try:
        content = bytearray(sound.read_bytes())
        content[-4:] = b"\x00\x00\x00\x3f"
        sound.write_bytes(content)
        changed = _again(made, tmp_path / "changed", *vad)
    finally:
        shutil.copy(tmp_path / "kept.wav", sound)
    row = _by_sample(rows(changed.folder, "samples"))["sound"][0]
    assert (row["error_code"], row["error_stage"]) == ("media_error", "curate")
    assert "is not the file that was traced" in row["message"]


def test_heat_maps_from_positions(made: Job, tmp_path: Path) -> None:
    overrides = ["trace.heatmaps=true", "trace.store=units", "curation.pos_weighting=false"]
    done = _again(made, tmp_path / "dest", *overrides)
    trace = {**KEPT, "store": "units", "heatmaps": True}
    fresh = _fresh(made, tmp_path, trace=trace, curation={"pos_weighting": False})
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


def test_heat_maps_without_positions_are_taken_over(made: Job, tmp_path: Path) -> None:
    trace = {**KEPT, "store": "units", "heatmaps": True}
    drawn = _fresh(made, tmp_path, trace=trace)
    done = _again(drawn, tmp_path / "dest", "curation.gamma=1", "trace.signals=[attmean]")
    for name in drawn.folder.names("heatmaps"):
        assert done.folder.read(f"heatmaps/{name}") == drawn.folder.read(f"heatmaps/{name}")
    bare = _again(drawn, tmp_path / "bare", "trace.heatmaps=false")
    assert bare.folder.names("heatmaps") == []
    again = _again(made, tmp_path / "dest2", "trace.heatmaps=true")
    assert rows(again.folder, "heatmaps") == rows(drawn.folder, "heatmaps")
    gone = _again(made, tmp_path / "dest2")
    assert gone.folder.names("heatmaps") == []
