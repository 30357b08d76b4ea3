"""What happens in a round of a storm, drawn from its seed: a list of events with their times.

The script is the same for each repetition of a seed. What the processes have done when an event
comes is not, so a seed that has found a fault finds it again often, but not always.
"""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field
from typing import Literal

from tests.pipeline.storm.driver_main import DriverPlan

Kind = Literal[
    "start",
    "kill",
    "kill driver",
    "stop",
    "terminate",
    "add",
    "edit",
    "drop",
    "restore",
    "revert",
    "remove manifests",
    "remove published",
    "remove parts",
    "remove verdict",
    "truncate published",
    "replace published",
]
TROUBLES: tuple[Kind, ...] = (
    "kill",
    "kill driver",
    "stop",
    "terminate",
    "add",
    "edit",
    "drop",
    "restore",
    "remove manifests",
    "remove published",
    "remove parts",
    "remove verdict",
    "truncate published",
    "replace published",
)
INPUT_CHANGES = ("add", "edit", "drop", "restore", "revert")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens. pick: chooses its target among those that are there then.

    for_s: of "stop", and of a driver that stops itself: seconds until it is resumed.
    """

    at_s: float
    kind: Kind
    pick: int
    for_s: float = 0.0
    driver: DriverPlan = field(default_factory=DriverPlan)


@dataclass(frozen=True, slots=True)
class Script:
    """The events of a round, by their times. finished_first: a run is finished before they begin.

    end_s: when the trouble stops.
    """

    finished_first: bool
    events: tuple[Event, ...]
    end_s: float


def write_script(chance: random.Random, seconds: float, lease_s: float) -> Script:
    """Draw the events of a round.

    Each round has a few kinds of trouble, so that some rounds are calm enough for drivers to come
    to an end.
    """
    kinds = list(chance.sample(TROUBLES, chance.randint(1, 4)))
    reverted = 0.5  # of the edits and drops
    if chance.random() < 0.2:
        # Shards change and change back while a driver that has work to do reads them.
        kinds, reverted = ["edit", "edit", "remove published"], 1.0
    failing = chance.choice([0.0, 0.0, 0.2])
    events = [_start(chance, 0.0, lease_s, failing)]
    for _ in range(int(seconds * chance.uniform(3, 5))):
        at_s = chance.uniform(0, seconds)
        events.append(_start(chance, at_s, lease_s, failing))
    for _ in range(int(seconds * chance.choice([3, 6, 10]))):
        at_s, kind = chance.uniform(0, seconds), chance.choice(kinds)
        events.append(Event(at_s, kind, chance.randrange(1000), _stop_s(chance, lease_s)))
        if kind in ("edit", "drop") and chance.random() < reverted:
            # The files of the first version are valid again, unless a driver has replaced them.
            events.append(Event(at_s + chance.uniform(0.02, 0.3), "revert", 0))
    events.sort(key=lambda event: event.at_s)
    return Script(chance.random() < 0.5, tuple(events), seconds)


def _start(chance: random.Random, at_s: float, lease_s: float, failing: float) -> Event:
    number = chance.random()
    sent = signal.SIGKILL if number < 0.12 else signal.SIGSTOP if number < 0.3 else 0
    plan = DriverPlan(
        break_lease=chance.random() < 0.25,
        delay_s=chance.uniform(0.05, 0.8) if chance.random() < 0.3 else 0.0,
        pause_s=chance.uniform(0, 0.08),
        apart=chance.random() < 0.4,
        signal=int(sent),
        # A driver that does all the work has about 170, one that has nothing to do about 20.
        operation=1 + int(170 * chance.random() ** 1.5),
        failing=failing,
        retry=chance.random() < 2 * failing,
    )
    return Event(at_s, "start", chance.randrange(1000), _stop_s(chance, lease_s), plan)


def _stop_s(chance: random.Random, lease_s: float) -> float:
    """Seconds for which a driver is stopped: mostly longer than its lease."""
    return chance.uniform(0.1, 0.5) if chance.random() < 0.3 else lease_s * chance.uniform(1.1, 1.7)
