"""End a process whose model hangs: Ray sees a process that is alive, and would wait forever."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HANGING_EXIT = 71  # exit status
log = logging.getLogger(__name__)


@contextmanager
def deadline(timeout_s: float | None, work: str) -> Iterator[None]:
    """End this process if the block takes longer than `timeout_s`; None sets no limit.

    work: what the block does, for the log. Work that is counted (`stages.guards.attempts`) is then
    tried again in another process; after too many deaths its sample becomes an error row.
    """
    if timeout_s is None:
        yield
        return

    def end() -> None:
        log.critical("%s took longer than %g s; this process ends", work, timeout_s)
        os._exit(HANGING_EXIT)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
