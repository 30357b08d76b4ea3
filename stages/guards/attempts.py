"""Attempts at a chunk, counted where they outlive the process that makes them.

A stage that can be killed by a sample (a model, on a device) says what it is about to do before it
does it. From the third attempt at a chunk on, it does the chunk sample by sample and says which, so
that a sample that has killed two processes becomes an error row instead of a loop without end.

A process that dies together with its driver (a machine that goes down) may have died of that, and
not of the sample: such a death counts half.

What a worker loads before it can work is counted too: Ray starts one that dies of it again, for
ever.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Protocol

from omnitrace_core.errors import BackendError, Quarantined

ONE_BY_ONE_FROM = 3
DEADLY = 2.0
LOADS = 5  # more than samples get: machines can be lost while their models load

log = logging.getLogger(__name__)


class AttemptLog(Protocol):
    """Small files in the run's folder."""

    @property
    def epoch(self) -> int:
        """Which driver of the run the process works for."""
        ...

    @property
    def worker(self) -> str:
        """Which of its workers this is; one that dies and is started anew stays the same."""
        ...

    def read(self, name: str) -> bytes | None:
        """What was written last, if anything was."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Replace it as a whole."""
        ...

    def delete(self, name: str) -> None:
        """Forget it."""
        ...


@dataclass(slots=True)
class Record:
    """What is known of a chunk that is not done.

    number: attempts so far, this one included. current: row key of the sample at work, when they
    are done one by one. deaths: by row key; a half for each that the driver died, too.
    """

    epoch: int
    number: int = 0
    current: str | None = None
    deaths: dict[str, float] = field(default_factory=dict)


class Attempt:
    """One attempt at a chunk; `row` is asked before each sample, `done` ends it."""

    def __init__(self, record: Record, keep: Callable[[Record | None], None]) -> None:
        self._record = record
        self._keep = keep
        keep(record)

    @property
    def number(self) -> int:
        """1 for the first."""
        return self._record.number

    @property
    def one_by_one(self) -> bool:
        """Whether to do the chunk's samples one after another, each announced by `row`."""
        return self.number >= ONE_BY_ONE_FROM

    def row(self, row_key: str) -> None:
        """Say that work on this sample begins, where they are done one by one.

        Raises:
            Quarantined: it is deadly.
        """
        if not self.one_by_one:
            return
        deaths = self._record.deaths.get(row_key, 0.0)
        if deaths >= DEADLY:
            raise Quarantined(
                f"{row_key}: the process that worked on it died {self.number - 1} times, and on "
                "this sample alone as often as is allowed; look for it in Ray's logs (where memory "
                "ran out, lower run.chunk_samples), and do it again in a run of another run.id"
            )
        self._record.current = row_key
        self._keep(self._record)

    def done(self) -> None:
        """All of the chunk is done: its attempts no longer matter."""
        self._keep(None)


class Attempts:
    """Counts one stage's attempts at chunks; without a log every attempt is the first."""

    def __init__(self, stage: str, log: AttemptLog | None) -> None:
        self._stage, self._log = stage, log

    def begin(self, chunk_key: str) -> Attempt:
        """Count an attempt at this chunk before it begins. Raises: OSError of the storage."""
        store = self._log
        if store is None:
            return Attempt(Record(0, 1), lambda record: None)
        name = f"{chunk_key}.{self._stage}.json"

        def keep(record: Record | None) -> None:
            if record is None:
                store.delete(name)
            else:
                store.write(name, json.dumps(asdict(record)).encode())

        record = _known(store.read(name)) or Record(store.epoch)
        if record.number:
            log.warning("%s: attempt %d (%s)", chunk_key, record.number + 1, self._stage)
        if record.current is not None:
            weight = 1.0 if record.epoch == store.epoch else 0.5
            record.deaths[record.current] = record.deaths.get(record.current, 0.0) + weight
        record.epoch, record.current = store.epoch, None
        record.number += 1
        return Attempt(record, keep)


class Loading:
    """A block in which a worker loads what it needs, counted before it begins.

    given_up: why not to enter it, where the worker's process died in it too often. It is for the
    first chunk to raise: what an actor's constructor raises makes Ray try another actor.

    Raises: OSError of the storage; LeaseLost.
    """

    def __init__(self, what: str, log: AttemptLog | None) -> None:
        self.given_up: BackendError | None = None
        self._attempt = Attempts("load", log).begin("" if log is None else log.worker)
        if self._attempt.number > LOADS:
            self.given_up = BackendError(
                f"the process that loads {what} died {LOADS} times in a row before it was done; "
                "look for it in Ray's logs: most often its machine has too little memory"
            )
            self._attempt.done()

    def __enter__(self) -> None:
        assert self.given_up is None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What it raises is of no interest where the block has raised.
        with nullcontext() if error is None else suppress(Exception):
            self._attempt.done()


def _known(content: bytes | None) -> Record | None:
    if content is None:
        return None
    try:
        return Record(**json.loads(content))
    except (ValueError, TypeError):
        # Not ours to judge: counting begins anew.
        return None
