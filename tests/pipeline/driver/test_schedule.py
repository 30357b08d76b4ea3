"""The schedule of a run: which chunks are left, and which shards are complete."""

from __future__ import annotations

from pathlib import Path

from pipeline.driver.schedule import Schedule
from tests.pipeline.made_runs import config_for, planned_run, write_input


def test_schedule_keeps_only_shards_in_progress(folder: Path) -> None:
    write_input(folder / "input", **{f"s{n}": ["x"] * 5 for n in range(4)})
    planned = planned_run(config_for(folder))
    shards = planned.plan.shards
    chunks = {shard.name: list(planned.plan.chunks(shard)) for shard in shards}
    done = {item.key for item in [*chunks["s0.parquet"], chunks["s1.parquet"][0]]}
    skipped: list[tuple[int, int]] = []
    schedule = Schedule(planned.plan, shards, done, lambda *counts: skipped.append(counts))
    names: list[str] = []
    while window := schedule.next_window(2):
        names += [shard.name for shard in schedule.pop_complete()]
        for chunk in window:
            schedule.count_committed(chunk.shard)
        names += [shard.name for shard in schedule.pop_complete()]
        assert schedule.n_shards_in_progress <= 2
    names += [shard.name for shard in schedule.pop_complete()]
    assert names == [shard.name for shard in shards]
    assert sum(n for n, _ in skipped) == 4
    assert sum(n for _, n in skipped) == 7
