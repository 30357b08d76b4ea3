"""Print the progress of a run: one line that is updated on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from omnitrace_core.printable import printable
from pipeline.plurals import counted
from pipeline.run_folder.commit import CommittedChunk

_TERMINAL_EVERY_S = 0.2
_LOG_EVERY_S = 10.0


class Progress:
    """Counts chunks as they are committed, and prints the counts to `stream` (default: stderr).

    n_chunks, n_rows: of the work that is left. n_replicas: number of model replicas; None if the
    work needs no model.
    """

    def __init__(
        self,
        n_chunks: int,
        n_rows: int,
        n_replicas: int | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._n_chunks, self._n_rows, self._n_replicas = n_chunks, n_rows, n_replicas
        self._chunks = self._rows = self._errors = self._tokens = 0
        self._trace_s = 0.0
        self._started = self._printed = time.monotonic()

    def skip(self, n_chunks: int, n_rows: int) -> None:
        """Take chunks and rows that need not be done off the totals."""
        self._n_chunks -= n_chunks
        self._n_rows -= n_rows

    @property
    def n_chunks_done(self) -> int:
        """Chunks committed so far."""
        return self._chunks

    def note(self, text: str) -> None:
        """Print a message on a separate line."""
        text = printable(text)
        self._stream.write(f"\r{text}\x1b[K\n" if self._live else f"{text}\n")
        self._stream.flush()

    def update(self, committed: CommittedChunk) -> None:
        """Count one committed chunk, and print the progress if it is time to."""
        self._chunks += 1
        self._rows += committed.n_rows
        self._errors += committed.n_error
        self._tokens += committed.n_tokens
        self._trace_s += committed.trace_s
        every_s = _TERMINAL_EVERY_S if self._live else _LOG_EVERY_S
        now = time.monotonic()
        if now - self._printed >= every_s or self._chunks == self._n_chunks:
            self._printed = now
            self._print(self.line(now - self._started))

    def line(self, wall_s: float) -> str:
        """The progress after `wall_s` seconds, which include the start of Ray and of the models."""
        rate = self._rows / wall_s if wall_s > 0 else 0.0
        left_s = (self._n_rows - self._rows) / rate if rate > 0 else 0.0
        fields = [
            f"{self._chunks}/{self._n_chunks} chunks, {self._rows}/{self._n_rows} samples",
            f"{rate:.2f} samples/s",
        ]
        if self._n_replicas and wall_s > 0:
            busy = self._trace_s / (self._n_replicas * wall_s)
            fields += [f"{self._tokens / wall_s:.1f} tokens/s", f"models busy {min(busy, 1):.0%}"]
        fields += [counted(self._errors, "error"), f"ETA {_duration(left_s)}"]
        return ", ".join(fields)

    def close(self) -> None:
        """End the line on a terminal."""
        if self._live and self._chunks:
            self._stream.write("\n")

    def _print(self, line: str) -> None:
        # On a terminal: return to the start of the line, write, clear the rest of the older line.
        self._stream.write(f"\r{line}\x1b[K" if self._live else f"{line}\n")
        self._stream.flush()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
