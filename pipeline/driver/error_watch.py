"""End a run early when too many rows are errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial

from pipeline.config import RunOptions
from pipeline.planning.plan import Chunk, Plan, Shard
from pipeline.run_folder.chunk_files import count_chunk_file
from pipeline.run_folder.manifests import Manifest
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map

_READERS = 16  # threads


class ErrorWatch:
    """Counts rows and error rows, of published shards and of chunks as they are committed.

    published: manifests of the shards that this run keeps. Shards that it processes again are left
    out.
    """

    def __init__(self, options: RunOptions, published: Iterable[Manifest]) -> None:
        self._limit = options.max_error_fraction
        self._min_rows = options.min_rows_to_stop
        self._rows = self._errors = 0
        for manifest in published:
            self.count(manifest.n_rows, manifest.n_error)

    def count(self, n_rows: int, n_error: int) -> None:
        """Add `n_rows` rows, of which `n_error` are errors."""
        self._rows += n_rows
        self._errors += n_error

    def stop_reason(self) -> str:
        """The reason to end the run; empty while there is none."""
        if self._rows < self._min_rows or self._errors <= self._limit * self._rows:
            return ""
        return (
            f"stopped early: {self._errors} of the first {self._rows} rows are errors, above "
            f"run.max_error_fraction={self._limit} (counted from run.min_rows_to_stop="
            f"{self._min_rows} on); see error_code and message in samples/, then correct the "
            "input or raise the limit; the same command continues the run"
        )


def count_committed_errors(
    watch: ErrorWatch,
    folder: Folder,
    plan: Plan,
    shards: Sequence[Shard],
    committed: Collection[str],
) -> None:
    """Count the rows of chunks that are committed and not published, by reading their files.

    committed: keys of committed chunks. A run that ended early and is started again needs this:
    otherwise it would load models and add more errors before it ends again.

    Raises:
        RunError: a chunk file is damaged.
    """
    chunks = (chunk for shard in shards for chunk in plan.chunks(shard) if chunk.key in committed)
    for n_rows, n_error in prefetch_map(partial(_count, folder), chunks, _READERS):
        watch.count(n_rows, n_error)


def _count(folder: Folder, chunk: Chunk) -> tuple[int, int]:
    try:
        return count_chunk_file(folder, chunk)
    except FileNotFoundError:
        # Deleted since it was listed, by a driver that wakes late; publishing its shard notices it.
        return 0, 0
