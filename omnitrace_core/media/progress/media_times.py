"""Measure how long media are decoded and fetched, without what a process does only once.

`decoding` measures a block. Inside it, `fetching` and `importing` take their own time off: what is
fetched counts separately, and the import of a library is neither. A decoding child process measures
itself and sends its times to the parent, so that they contain neither the start of the child nor
the wait for its turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class MediaTimes:
    """Seconds by the clock. decode_s: decoding. fetch_s: waiting for files, stores and the web."""

    decode_s: float = 0.0
    fetch_s: float = 0.0


@dataclass(slots=True)
class _State:
    clock: Callable[[], float] = time.perf_counter


_state = _State()


_collected: ContextVar[MediaTimes | None] = ContextVar("collected", default=None)
# Seconds that blocks inside the innermost measured block took off it.
_taken_off: ContextVar[list[float] | None] = ContextVar("taken_off", default=None)


def set_clock(clock: Callable[[], float] = time.perf_counter) -> None:
    """Measure with another clock: returns seconds."""
    _state.clock = clock


@contextmanager
def collecting_times() -> Iterator[MediaTimes]:
    """Collect the times of everything that this thread decodes in the block."""
    token = _collected.set(MediaTimes())
    try:
        yield _current()
    finally:
        _collected.reset(token)


def add_times(times: MediaTimes) -> None:
    """Add to the times that are being collected, if any."""
    current = _current()
    current.decode_s += times.decode_s
    current.fetch_s += times.fetch_s


@contextmanager
def decoding() -> Iterator[None]:
    """Count the block as decoding."""
    with _measured() as own_s:
        yield
    _current().decode_s += own_s[0]


@contextmanager
def fetching() -> Iterator[None]:
    """Count the block as fetching, and not as the decoding around it."""
    with _measured() as own_s:
        yield
    _current().fetch_s += own_s[0]


@contextmanager
def importing() -> Iterator[None]:
    """Count the block as nothing: it takes long once per process, and says nothing of media."""
    with _measured():
        yield


@contextmanager
def _measured() -> Iterator[list[float]]:
    """Yields a list that holds, after the block, its seconds without those of inner blocks."""
    own_s: list[float] = []
    inner: list[float] = []
    token = _taken_off.set(inner)
    started = _state.clock()
    try:
        yield own_s
    finally:
        elapsed = _state.clock() - started
        _taken_off.reset(token)
        own_s.append(elapsed - sum(inner))
        if (outer := _taken_off.get()) is not None:
            outer.append(elapsed)


def _current() -> MediaTimes:
    return _collected.get() or MediaTimes()
