"""Ending a run early when too many rows are errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial

from pipeline.config import RunOptions
from pipeline.planning.plan import Plan, Shard
from pipeline.run_folder.chunk_files import count_chunk_file
from pipeline.run_folder.manifests import Manifest
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map

_READERS = 16  # threads


class ErrorWatch:
    """Counts rows and errors: of what is published, and of what is committed before our eyes.

    published: manifests that are to stay; those of shards that are done again say nothing.
    """

    def __init__(self, options: RunOptions, published: Iterable[Manifest]) -> None:
        self._limit = options.max_error_fraction
        self._min_rows = options.min_rows_to_stop
        self._rows = self._errors = 0
        for manifest in published:
            self.count(manifest.n_rows, manifest.n_error)

    def count(self, n_rows: int, n_error: int) -> None:
        """Add rows, and how many of them are errors."""
        self._rows += n_rows
        self._errors += n_error

    def too_many(self) -> str:
        """Why the run should end, or nothing."""
        if self._rows < self._min_rows or self._errors <= self._limit * self._rows:
            return ""
        return (
            f"stopped early: {self._errors} of the first {self._rows} rows are errors, above "
            f"run.max_error_fraction={self._limit} (counted from run.min_rows_to_stop="
            f"{self._min_rows} on); see error_code and message in samples/, and mend the input or "
            "raise the limit: the same command continues the run"
        )


def count_chunk_files(
    watch: ErrorWatch, folder: Folder, plan: Plan, shards: Sequence[Shard], parts: Collection[str]
) -> None:
    """Count what was committed and is not published: each part is looked into.

    parts: keys of chunks that have one. Otherwise whoever starts a run again that had ended early
    would pay for models and for more errors before it ends again.
    """
    chunks = (chunk for shard in shards for chunk in plan.chunks(shard) if chunk.key in parts)
    for counted in prefetch_map(partial(count_chunk_file, folder), chunks, _READERS):
        watch.count(*counted)
