"""How long the earlier drivers of a run worked, from its verdict and its lease."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.run_folder.lease_file import LeaseHolder
from pipeline.totals.run_times import RunTimes, seconds_since_1970, times_from_json, utc_time


def earlier_times(stored: Mapping[str, Any], predecessor: LeaseHolder | None) -> RunTimes | None:
    """The times of all earlier drivers; None if there was none, or only of older versions.

    stored: the fields of verdict.json. predecessor: the last holder of the lease. A driver that was
    killed counts up to the last renewal of its lease, also if it had not yet written a verdict.
    """
    times, epoch = times_from_json(stored.get("times")), stored.get("epoch", 0)
    if predecessor is None:
        return times
    if times is not None and times.ended_at is None and predecessor.epoch == epoch:
        began = predecessor.taken_at or seconds_since_1970(times.driver_started_at)
        return replace(times, wall_s=times.wall_s + max(0.0, predecessor.renewed_at - began))
    for spell in predecessor.spells:
        if times is not None and spell.epoch == epoch and times.ended_at is None:
            # Its driver wrote the verdict, and was counted, but was killed.
            times = replace(times, wall_s=times.wall_s + spell.seconds)
        elif spell.epoch > epoch:
            times = times or RunTimes(started_at=utc_time(spell.taken_at))
            times = replace(
                times, wall_s=times.wall_s + spell.seconds, n_drivers=times.n_drivers + 1
            )
    return times
