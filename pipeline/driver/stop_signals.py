"""SIGTERM and Ctrl-C end a run in good order; the second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM within the block into a KeyboardInterrupt that names it.

    The next one has its default effect: it kills the process. Threads other than the main one
    cannot hear signals, there this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in _SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: set from outside Python, and not to be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def keeping_handlers() -> Iterator[None]:
    """Put back, behind the block, how this process answers the two signals.

    `ray.init` puts a handler of its own for SIGTERM in place of ours, which would end the process
    at once even while Ray shuts down. What it raises meanwhile becomes what ours raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    except SystemExit as stop:
        if stop.code == signal.SIGTERM:
            raise KeyboardInterrupt(signal.SIGTERM.name) from stop
        raise
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
