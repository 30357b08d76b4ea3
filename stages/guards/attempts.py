"""Count attempts at a chunk in a log that outlives the process which makes them.

A sample can kill the process that works on it, for example inside a model. So a stage records each
attempt before it begins. From the third attempt at a chunk on, the stage works sample by sample and
first records which; a sample that has killed two processes then becomes an error row instead of an
endless loop.

A process that dies together with its driver may have died of that (a machine went down) and not of
the sample: such a death counts half. One that its own driver ended, to start again on other
machines after a node fault, does not count: neither as a death nor as an attempt.

Loading a model is counted too: Ray restarts a worker that dies while it loads, without a limit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Protocol

from omnitrace_core.errors import BackendError, FatalError, Quarantined
from omnitrace_core.runtime.node_faults import as_node_fault, is_node_fault

FIRST_ONE_BY_ONE = 3  # the first attempt that works sample by sample
MAX_DEATHS = 2.0  # of one sample
MAX_LOADS = 5  # more than a sample gets: machines can be lost while their models load

log = logging.getLogger(__name__)


class AttemptLog(Protocol):
    """Small named records that outlive a process, for example files in the run's folder."""

    @property
    def epoch(self) -> int:
        """The epoch of the driver this process works for."""
        ...

    @property
    def restart(self) -> int:
        """How often that driver had started its graph again when it started this process."""
        ...

    @property
    def worker(self) -> str:
        """The id of this worker; it stays the same when Ray restarts a worker that died."""
        ...

    def read(self, name: str) -> bytes | None:
        """The record of this name; None if there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Replace the record of this name."""
        ...

    def delete(self, name: str) -> None:
        """Delete the record of this name."""
        ...


@dataclass(slots=True)
class AttemptRecord:
    """The attempts at a chunk that is not finished.

    epoch, restart: of the last attempt. number: attempts so far, the present one included.
    current: row key of the sample in work, when a chunk is done sample by sample. deaths: by row
    key, a half for each death in which the driver died too.
    """

    epoch: int
    number: int = 0
    current: str | None = None
    deaths: dict[str, float] = field(default_factory=dict)
    restart: int = 0


class Attempt:
    """One attempt at a chunk: call `announce` before each sample and `finish` at the end.

    save: stores the record, or deletes it if it is None.
    """

    def __init__(self, record: AttemptRecord, save: Callable[[AttemptRecord | None], None]) -> None:
        self._record = record
        self._save = save
        save(record)

    @property
    def number(self) -> int:
        """1 for the first attempt."""
        return self._record.number

    @property
    def one_by_one(self) -> bool:
        """Whether to do the chunk's samples one after another."""
        return self.number >= FIRST_ONE_BY_ONE

    def announce(self, row_key: str) -> None:
        """Record that work on this sample begins, if samples are done one by one.

        Raises:
            Quarantined: the sample has killed too many processes.
        """
        if not self.one_by_one:
            return
        deaths = self._record.deaths.get(row_key, 0.0)
        if deaths >= MAX_DEATHS:
            raise Quarantined(
                f"{row_key}: the process that worked on it died {self.number - 1} times, and on "
                "this sample alone as often as is allowed; look for it in Ray's logs (where memory "
                "ran out, lower run.chunk_samples); to try the sample again, run with "
                "run.retry=[quarantined]"
            )
        self._record.current = row_key
        self._save(self._record)

    def finish(self) -> None:
        """Forget the attempts at the chunk: all of it is done."""
        self._save(None)


class AttemptCounter:
    """Counts the attempts of one stage at its chunks; without a log, every attempt is the first."""

    def __init__(self, stage: str, log: AttemptLog | None) -> None:
        self._stage, self._log = stage, log

    def begin(self, chunk_key: str) -> Attempt:
        """Count an attempt at this chunk before it begins. Raises: OSError of the storage."""
        store = self._log
        if store is None:
            return Attempt(AttemptRecord(epoch=0, number=1), lambda record: None)
        name = f"{chunk_key}.{self._stage}.json"

        def save(record: AttemptRecord | None) -> None:
            if record is None:
                store.delete(name)
            else:
                store.write(name, json.dumps(asdict(record)).encode())

        record = _parse(store.read(name)) or AttemptRecord(store.epoch, restart=store.restart)
        same_driver = record.epoch == store.epoch
        if same_driver and record.restart != store.restart:
            record.number -= 1
        elif record.current is not None:
            weight = 1.0 if same_driver else 0.5
            record.deaths[record.current] = record.deaths.get(record.current, 0.0) + weight
        if record.number:
            log.warning("%s: attempt %d (%s)", chunk_key, record.number + 1, self._stage)
        record.epoch, record.restart, record.current = store.epoch, store.restart, None
        record.number += 1
        return Attempt(record, save)


class CountedLoad:
    """A block in which a worker loads its models, counted before it begins.

    refusal: set if the process died in this block too often; then do not enter it. It is set, too,
    if the block failed because of the machine; that error is not raised by the block. Raise it at
    the first chunk. (If an actor's constructor raised it, Ray would start another actor.)

    Raises: OSError of the storage; LeaseLost.
    """

    def __init__(self, what: str, log: AttemptLog | None) -> None:
        self.refusal: FatalError | None = None
        self._attempt = AttemptCounter("load", log).begin("" if log is None else log.worker)
        if self._attempt.number > MAX_LOADS:
            self.refusal = BackendError(
                f"the process that loads {what} died {MAX_LOADS} times in a row before it was "
                "done; look for it in Ray's logs: most often its machine has too little memory"
            )
            self._attempt.finish()

    def __enter__(self) -> None:
        assert self.refusal is None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # An error of the block matters more than one of the storage.
        with nullcontext() if error is None else suppress(Exception):
            self._attempt.finish()
        if error is None or not is_node_fault(error):
            return False
        self.refusal = as_node_fault(error)
        return True


def _parse(content: bytes | None) -> AttemptRecord | None:
    if content is None:
        return None
    try:
        return AttemptRecord(**json.loads(content))
    except (ValueError, TypeError):
        # Damaged, or written by another version: counting starts again.
        return None
