"""How far a run is: one line that renews itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from pipeline.commit import Committed

_TERMINAL_EVERY_S = 0.2
_LOG_EVERY_S = 10.0


class Progress:
    """Counts chunks as they are committed and says so on `stream`."""

    def __init__(self, n_chunks: int, n_rows: int, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty()
        self._n_chunks, self._n_rows = n_chunks, n_rows
        self._chunks = self._rows = self._errors = 0
        self._started = self._said = time.monotonic()

    def update(self, committed: Committed) -> None:
        """Count one chunk."""
        self._chunks += 1
        self._rows += committed.n_rows
        self._errors += committed.n_error
        every_s = _TERMINAL_EVERY_S if self._live else _LOG_EVERY_S
        now = time.monotonic()
        if now - self._said >= every_s or self._chunks == self._n_chunks:
            self._said = now
            self._say(self.line(now - self._started))

    def line(self, wall_s: float) -> str:
        """Where the run stands after `wall_s` seconds."""
        rate = self._rows / wall_s if wall_s > 0 else 0.0
        left_s = (self._n_rows - self._rows) / rate if rate > 0 else 0.0
        return (
            f"{self._chunks}/{self._n_chunks} chunks, {self._rows}/{self._n_rows} samples, "
            f"{rate:.2f} samples/s, {self._errors} errors, ETA {_duration(left_s)}"
        )

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._live and self._chunks:
            self._stream.write("\n")

    def _say(self, line: str) -> None:
        # On a terminal: back to the start of the line, write, clear what an older line left.
        self._stream.write(f"\r{line}\x1b[K" if self._live else f"{line}\n")
        self._stream.flush()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
