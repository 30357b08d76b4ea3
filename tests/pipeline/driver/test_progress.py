from __future__ import annotations

import io

from pipeline.driver.progress import Progress
from pipeline.run_folder.commit import CommittedChunk


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _chunk(n_rows: int = 4, n_error: int = 0) -> CommittedChunk:
    return CommittedChunk("key", "shard", n_rows, n_error)


def test_line_has_counts_rate_and_eta() -> None:
    progress = Progress(n_chunks=100, n_rows=400, stream=io.StringIO())
    progress.update(_chunk())
    progress.update(_chunk(n_error=1))
    assert progress.line(wall_s=4.0) == (
        "2/100 chunks, 8/400 samples, 2.00 samples/s, 1 error, ETA 0:03:16"
    )


def test_terminal_line_is_overwritten() -> None:
    stream = _Terminal()
    progress = Progress(1, 4, stream=stream)
    progress.update(_chunk())
    progress.close()
    assert stream.getvalue().startswith("\r1/1 chunks")
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 1


def test_log_gets_plain_lines_and_fewer_than_chunks() -> None:
    stream = io.StringIO()
    progress = Progress(1000, 4000, stream=stream)
    for _ in range(1000):
        progress.update(_chunk())
    progress.close()
    printed = stream.getvalue()
    assert printed.splitlines()[-1].startswith("1000/1000 chunks, 4000/4000 samples")
    assert len(printed.splitlines()) < 10
    assert "\r" not in printed
