"""When a run started and ended, and how long its drivers worked, over kills and resumes."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from pipeline.from_json import from_json


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Start, end and length of a run, as stored in verdict.json and run.json. Times are in UTC.

    started_at: when the run's first driver took the lease. ended_at: when the last driver wrote
    this; null while it works, or if it was killed. wall_s: seconds that all drivers worked, one
    after another, without the time between them; a driver that was killed counts up to the last
    renewal of its lease. driver_started_at, driver_s: of the driver that wrote this. n_drivers:
    drivers in wall_s.
    """

    started_at: str = ""
    ended_at: str | None = None
    wall_s: float = 0.0
    driver_started_at: str = ""
    driver_s: float = 0.0
    n_drivers: int = 0


def times_from_json(content: object) -> RunTimes | None:
    """Times as `dataclasses.asdict` stores them; None if they are missing, or another version's.

    Raises:
        ValueError: one of them, or the whole, has a wrong type.
    """
    if content is None:
        return None
    if isinstance(content, Mapping) and content.keys() != {f.name for f in fields(RunTimes)}:
        return None
    return from_json(RunTimes, content)


class RunClock:
    """Measures how long this driver works, and adds the time of the earlier ones.

    earlier: of the drivers before this one; None if there was none, or only of older versions.
    """

    def __init__(
        self, earlier: RunTimes | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._begun = clock, clock()
        now = utc_now()
        times = RunTimes(started_at=now) if earlier is None else earlier
        self._earlier_s = times.wall_s
        self._times = replace(times, driver_started_at=now, n_drivers=times.n_drivers + 1)

    def going_on(self) -> RunTimes:
        """The times to store when this driver begins."""
        return replace(self._times, ended_at=None, wall_s=round(self._earlier_s, 3), driver_s=0.0)

    def ended(self) -> RunTimes:
        """The times to store when this driver ends."""
        driver_s = self._clock() - self._begun
        return replace(
            self._times,
            ended_at=utc_now(),
            wall_s=round(self._earlier_s + driver_s, 3),
            driver_s=round(driver_s, 3),
        )


def utc_now() -> str:
    """The time in UTC, ISO 8601 with seconds."""
    return utc_time(time.time())


def utc_time(seconds: float) -> str:
    """The time in UTC, ISO 8601 with seconds. seconds: since 1970."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def seconds_since_1970(text: str) -> float:
    """The time of a text as `utc_time` makes it; infinity if it is none."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return math.inf
