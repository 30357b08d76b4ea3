"""A machine without space for temporary files: no sample is blamed, and others do the work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from omnitrace_core.errors import NodeFault, RunError
from pipeline.run_folder.commit import commit_chunk
from pipeline.storage.folder import Folder
from tests.core.media_files import audio_bytes, beep
from tests.pipeline.drivers import Case, assert_exactly_once, kill_group, make_case, wait_until
from tests.pipeline.local_cluster import local_cluster
from tests.pipeline.made_runs import Worker, config_for, planned_run
from tests.small_disk import grow, small_disk, use
from tests.stages.chunks import Row, user

QUICK_TRIES = Path(__file__).parent / "quick_tries"


def sound_row(sample_id: str) -> Row:
    """A sample with a sound of 125 KiB, which is copied to a temporary file to be decoded."""
    sound = {"type": "audio", "data": audio_bytes(beep(2.0, [0.5]), 16_000)}
    return {"sample_id": sample_id, "messages": [user(sound, {"type": "text", "text": "What?"})]}


@pytest.fixture
def case(tmp_path: Path, tiny_model: str) -> Case:
    """Three chunks: of sounds, and of texts alone."""
    rows: list[str | Row | None] = [*map(sound_row, "ab"), "c", "d", *map(sound_row, "ef")]
    case = make_case(tmp_path, tiny_model, {"a": rows}, decode={"max_new_tokens": 4})
    case.env["PYTHONPATH"] = f"{QUICK_TRIES}:{Path.cwd()}"
    # Ray's own files would lie in TMPDIR otherwise.
    case.env["RAY_TMPDIR"] = "/tmp"
    return case


def verdict_of(case: Case) -> Row:
    assert case.root is not None, case.log()
    verdict: Row = json.loads((case.root / "verdict.json").read_text())
    return verdict


@pytest.mark.slow
@pytest.mark.ray
def test_full_temporary_disk_stops_the_run_and_blames_no_sample(case: Case) -> None:
    """The only machine has 48 of 256 KiB left for temporary files, then more."""
    with small_disk(case.folder / "small", "256k") as folder:
        use(folder, 208)
        case.env["TMPDIR"] = str(folder)
        assert case.finish() == 1, case.log()
        verdict = verdict_of(case)
        assert (verdict["exit_code"], verdict["finished"]) == (1, False)
        for part in (
            "in 3 tries",
            "stage decode_media",
            "No space left on device",
            f"a temporary file in {folder}",
            "takes 128,080 bytes",
            "set TMPDIR to a folder with space, or lower media.max_bytes=",
            "the same command continues the run",
        ):
            assert part in verdict["reason"]
        assert case.published() == 0
        assert case.output().count("starts in") == 2
        grow(folder, "1m")
        assert case.finish() == 0, case.log()
    assert set(assert_exactly_once(case).values()) == {""}


@pytest.mark.slow
@pytest.mark.ray
def test_machine_with_a_full_temporary_disk_is_avoided(case: Case) -> None:
    """The first machine has too little space; the second joins before the second try."""
    go_on = case.folder / "go-on"
    case.env["GO_ON"] = str(go_on)
    with (
        small_disk(case.folder / "small", "256k") as folder,
        local_cluster(0, {**os.environ, **case.env}) as cluster,
    ):
        use(folder, 208)
        cluster.add_node(3, TMPDIR=str(folder))
        driver = case.start("--address", cluster.address)
        try:
            wait_until(lambda: "starts in" in case.output(), driver)
            cluster.add_node(3)
            go_on.write_text("")
            assert driver.wait(400) == 0, case.log()
        finally:
            kill_group(driver)
    assert case.output().count("starts in") == 1, "the second try met the same machine"
    assert set(assert_exactly_once(case).values()) == {""}


def test_full_output_is_no_fault_of_the_machine(folder: Path) -> None:
    """All machines write to it: nothing is tried again."""
    (folder / "output").mkdir()
    with small_disk(folder / "output" / "run", "4k") as output:
        run = planned_run(config_for(folder))
        chunk = next(iter(run.plan.chunks(run.plan.shards[0])))
        records = Worker(Folder(str(output))).records(chunk)
        with pytest.raises(RunError, match=r"the output cannot be written: .*No space"):
            commit_chunk(records, Folder(str(output)))


def test_full_temporary_disk_of_an_upload_is_the_machines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    with small_disk(folder / "small", "4k") as small:
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        run = planned_run(config_for(folder))
        chunk = next(iter(run.plan.chunks(run.plan.shards[0])))
        target = Folder("memory://node-faults")
        with pytest.raises(NodeFault, match=r"stage commit, chunk .*No space.*set TMPDIR"):
            commit_chunk(Worker(target).records(chunk), target)
        assert target.tree(".arrow") == []
