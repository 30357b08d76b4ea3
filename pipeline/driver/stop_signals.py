"""Stop a run cleanly on SIGTERM or Ctrl-C; a second signal ends it at once."""

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

    The next signal has its default effect and kills the process. Only the main thread can receive
    signals; in any other thread this does nothing.
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
            # None: the handler was not set from Python and cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def restoring_handlers() -> Iterator[None]:
    """Restore the handlers of both signals after the block.

    `ray.init` replaces our handler of SIGTERM by one that exits at once, even while Ray shuts down.
    Within the block, the SystemExit that Ray's handler raises becomes the KeyboardInterrupt that
    ours would raise.
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
