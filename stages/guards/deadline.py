"""Ending a process whose model hangs: Ray sees one that is alive, and waits."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HUNG = 71  # exit status
log = logging.getLogger(__name__)


@contextmanager
def deadline(timeout_s: float | None, doing: str) -> Iterator[None]:
    """End this process if the block takes longer; None: it may take as long as it likes.

    doing: what the log says it was at. Work that is counted (`stages.guards.attempts`) is then
    done again elsewhere, and left alone in the end.
    """
    if timeout_s is None:
        yield
        return

    def end() -> None:
        log.critical("at %s for %g s; this process ends", doing, timeout_s)
        os._exit(HUNG)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
