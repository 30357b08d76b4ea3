"""Report progress from the decoders to the parent process that waits for them.

Decoders call `report_progress` each time they advance: after a frame, a block of a download, a
pass over a stream. In a decoding child process the parent receives the report and starts its time
limit anew; in any other process the call does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# The parent waits for many seconds, so more frequent reports would only cost time.
_MIN_INTERVAL_S = 0.5


class _State:
    listener: Callable[[], object] | None = None
    min_interval_s = _MIN_INTERVAL_S
    last_report_s = float("-inf")


def set_listener(
    listener: Callable[[], object] | None, min_interval_s: float = _MIN_INTERVAL_S
) -> None:
    """Pass the reports of this process to `listener`; None stops that.

    min_interval_s: a report that follows the last one sooner is dropped.
    """
    _State.listener = listener
    _State.min_interval_s = min_interval_s
    _State.last_report_s = float("-inf")


def report_progress() -> None:
    """Report that decoding advanced. Raises: what the listener raises."""
    if _State.listener is None:
        return
    now_s = time.monotonic()
    if now_s - _State.last_report_s >= _State.min_interval_s:
        _State.last_report_s = now_s
        _State.listener()
