"""Totals of a run: right after kills, resumes and shards that an older version published."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.driver.finished_run import finished_verdict
from pipeline.driver.run import run
from pipeline.planning.identified_run import identify_run
from pipeline.planning.plan import Chunk
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.lease_file import LEASE
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.totals.run_times import RunClock
from pipeline.totals.shard_totals import Totals, added, totals_of
from stages.arrow.table_schema import CHUNK_FILE
from tests.pipeline.made_runs import DAY, Worker, config_for, planned_run, stored_verdict


class Killed(BaseException):
    """In place of SIGKILL: no code of the driver handles it."""


class CountedWorker(Worker):
    """Each ok sample has 5 prompt tokens and 3 generated ones, and took the model 0.25 s."""

    def __init__(self, run: PlannedRun, n_chunks: int = 100) -> None:
        super().__init__(run.folder)
        self.n_chunks = n_chunks

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        record = super()._record(row)
        if record["sample"]["status"] == "ok":
            timings = {"trace_s": 0.25, "decode_s": 0.5}
            record["sample"] |= {
                "n_prompt_tokens": 5,
                "n_generated_tokens": 3,
                "timings": timings,
            }
        return record

    def __call__(self, chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        for chunk in chunks:
            if not self.n_chunks:
                raise Killed
            self.n_chunks -= 1
            yield from super().__call__([chunk])


# Of the four good rows of the fixture `folder`; each has two spans with one source.
TOTALS = Totals(
    n_prompt_tokens=20,
    n_generated_tokens=12,
    model_s=1.0,
    decode_s=2.0,
    spans_by_outcome={"supported": 8},
    spans_by_modality={"text": 8},
    sources_by_modality={"text": 8},
)


def test_totals_of_records_of_every_kind() -> None:
    sources = [{"modality": "image"}, {"modality": "text"}]
    media = [
        {"type": "video", "start_s": 1.0, "end_s": 3.5},
        {"type": "image"},
        {"type": "audio", "start_s": 0.0, "end_s": 2.0},
        {"type": "audio", "start_s": 0.5, "end_s": 1.0},
    ]
    timings = {"fetch_s": 1.0, "decode_s": 2.0, "speech_s": 4.0, "trace_s": 8.0, "replay_s": 3.0}
    sample = {"n_prompt_tokens": 7, "n_generated_tokens": 2, "media": media, "timings": timings}
    spans = [
        {"outcome": "supported", "sources": sources},
        {"outcome": "unsupported", "sources": []},
        {"outcome": "supported", "sources": [{"modality": "text"}]},
        {"outcome": "no_content", "sources": None},
    ]
    failed = {"status": "error", "media": media[1:2], "timings": {"decode_s": 16.0}}
    rows = [
        {"sample": failed, "spans": []},
        {"sample": sample, "spans": spans},
        {"sample": {"status": "error"}, "spans": None},
    ]
    records = pa.Table.from_pylist(rows, schema=CHUNK_FILE)
    expected = Totals(
        n_prompt_tokens=7,
        n_generated_tokens=2,
        model_s=8.0,
        fetch_s=1.0,
        decode_s=18.0,
        speech_s=4.0,
        spans_by_outcome={"no_content": 1, "supported": 2, "unsupported": 1},
        spans_by_modality={"image": 1, "none": 2, "text": 1},
        sources_by_modality={"image": 1, "text": 2},
        media_by_type={"audio": 2, "image": 2, "video": 1},
        media_s={"audio": 2.5, "video": 2.5},
    )
    assert added([totals_of(records)]) == expected
    assert added([totals_of(records.slice(i, 1)) for i in range(3)]) == expected
    assert totals_of(records.slice(0, 0)) == added([]) == Totals()


def test_totals_are_right_whatever_was_killed(folder: Path) -> None:
    """Each driver commits one chunk and dies; the totals are of the manifests alone."""
    config, n_drivers = config_for(folder), 0
    while True:
        n_drivers += 1
        planned = planned_run(config)
        try:
            verdict = run(planned, CountedWorker(planned, n_chunks=1))
        except Killed:
            continue
        break
    assert n_drivers == 4
    assert verdict.totals == TOTALS
    assert (verdict.n_shards_with_totals, verdict.n_published) == (3, 3)
    assert (verdict.n_ok, verdict.by_code) == (
        4,
        {"duplicate_sample_id": 1, "missing_sample_id": 1},
    )
    content = json.loads(planned.folder.read("run.json"))
    stored = stored_verdict(planned)
    for name in ("times", "totals", "n_shards_with_totals", "n_ok", "by_code", "n_error", "n_rows"):
        assert content[name] == stored[name]
    assert content["by_code"] == {"duplicate_sample_id": 1, "missing_sample_id": 1}
    assert stored["totals"] == asdict(TOTALS)
    # A finished run gives the same, by its verdict alone or by its manifests.
    again = finished_verdict(identify_run(config, lambda: DAY))
    assert again == verdict
    assert again is not None
    assert again.times == verdict.times
    from_manifests = run(planned_run(config))
    assert (from_manifests, from_manifests.times) == (verdict, verdict.times)


def test_manifests_of_an_older_version_have_no_totals(folder: Path) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    run(planned, CountedWorker(planned))
    name = "_manifests/shard-00001.json"
    manifest = json.loads(planned.folder.read(name))
    del manifest["totals"]
    planned.folder.write(name, json.dumps(manifest).encode())
    planned.folder.delete("verdict.json")
    assert [item.totals is None for item in read_manifests(planned.folder).values()] == [0, 1, 0]
    verdict = run(planned_run(config))
    assert verdict.finished
    assert (verdict.n_shards_with_totals, verdict.n_published) == (2, 3)
    assert verdict.totals.n_generated_tokens == 9


@pytest.mark.parametrize("ends", ["stopped", "killed", "killed by an older version", "failed"])
def test_time_of_earlier_drivers_is_added(
    folder: Path, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(RunClock.__init__, "__defaults__", (lambda: next(clock),))
    config = config_for(folder)
    planned = planned_run(config)
    errors: dict[str, type[BaseException]] = {"stopped": KeyboardInterrupt, "failed": ValueError}
    error = errors.get(ends, Killed)

    def work(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from CountedWorker(planned)(chunks[:1])
        raise error

    with suppress(Killed, ValueError):
        run(planned, work)
    first = stored_verdict(planned)["times"]
    assert isinstance(first, dict)
    if ends.startswith("killed"):
        assert (first["ended_at"], first["wall_s"]) == (None, 0)
        lease = json.loads(planned.folder.read(LEASE))
        started = first["driver_started_at"] = "2026-01-31T10:00:00+00:00"
        lease["renewed_at"] = 1_769_853_600 + 100  # 100 s later
        if ends == "killed by an older version":
            del lease["taken_at"], lease["earlier"]
        else:
            lease["taken_at"] = 1_769_853_600
        lease["released"] = False
        lease["pid"] = 1 << 30
        planned.folder.write(LEASE, json.dumps(lease).encode())
        verdict = stored_verdict(planned)
        verdict["times"] = first = {**first, "started_at": started}
        planned.folder.write("verdict.json", json.dumps(verdict).encode())
    else:
        assert first["ended_at"] is not None
        assert (first["wall_s"], first["driver_s"], first["n_drivers"]) == (100, 100, 1)
    planned = planned_run(config)
    times = run(planned, CountedWorker(planned), take_lease=True).times
    assert (times.wall_s, times.driver_s, times.n_drivers) == (200, 100, 2)
    assert times.started_at == first["started_at"]
    content = json.loads(planned.folder.read("run.json"))
    assert content["started_at"] == content["times"]["started_at"] == first["started_at"]


def test_driver_that_dies_before_its_first_verdict_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its own time nor that of the killed driver before it is lost."""
    planned = planned_run(config_for(folder))
    with suppress(Killed):
        run(planned, CountedWorker(planned, n_chunks=1))
    first = stored_verdict(planned)["times"]
    assert isinstance(first, dict)

    def lease_says(renewed_after_s: float) -> None:
        """The holder was killed, so many seconds after it had taken the lease."""
        lease = json.loads(planned.folder.read(LEASE))
        lease |= {"renewed_at": lease["taken_at"] + renewed_after_s, "pid": 1 << 30}
        planned.folder.write(LEASE, json.dumps(lease | {"released": False}).encode())

    lease_says(3)
    for _ in range(2):
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr("pipeline.driver.run.RetiredNumbers", _die)
            run(planned_run(planned.config), CountedWorker(planned), take_lease=True)
        lease_says(50)
    assert stored_verdict(planned)["times"] == first
    planned = planned_run(planned.config)
    times = run(planned, CountedWorker(planned), take_lease=True).times
    assert times.n_drivers == 4
    assert times.wall_s - times.driver_s == pytest.approx(103)
    assert times.started_at == first["started_at"]


def test_first_driver_dies_before_its_first_verdict(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = planned_run(config_for(folder))
    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr("pipeline.driver.run.RetiredNumbers", _die)
        run(planned, CountedWorker(planned))
    lease = json.loads(planned.folder.read(LEASE))
    lease |= {"taken_at": 1_769_853_600, "renewed_at": 1_769_853_607}
    planned.folder.write(LEASE, json.dumps(lease).encode())
    times = run(planned_run(planned.config), CountedWorker(planned), take_lease=True).times
    assert (times.started_at, times.n_drivers) == ("2026-01-31T10:00:00+00:00", 2)
    assert times.wall_s - times.driver_s == pytest.approx(7)


def _die(*_: object) -> None:
    raise Killed


def test_clock_of_a_run_that_an_older_version_began() -> None:
    times = RunClock(None).going_on()
    assert (times.wall_s, times.n_drivers, times.ended_at) == (0, 1, None)
    assert times.started_at == times.driver_started_at != ""
