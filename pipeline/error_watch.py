"""Ending a run early when too many rows are errors."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.commit import Committed
from pipeline.config import RunOptions
from pipeline.manifest import Manifest


class ErrorWatch:
    """Counts rows and errors: of what is published, and of what is committed before our eyes.

    published: manifests that are to stay; those of shards that are done again say nothing.
    """

    def __init__(self, options: RunOptions, published: Iterable[Manifest]) -> None:
        self._limit = options.max_error_fraction
        self._min_rows = options.min_rows_to_stop
        self._rows = self._errors = 0
        for manifest in published:
            self._rows += manifest.n_rows
            self._errors += manifest.n_error

    def too_many(self, committed: Committed) -> str:
        """Count a chunk; why the run should end, or nothing."""
        self._rows += committed.n_rows
        self._errors += committed.n_error
        if self._rows < self._min_rows or self._errors <= self._limit * self._rows:
            return ""
        return (
            f"stopped early: {self._errors} of the first {self._rows} rows are errors, above "
            f"run.max_error_fraction={self._limit} (counted from run.min_rows_to_stop="
            f"{self._min_rows} on); see error_code and message in samples/, and mend the input or "
            "raise the limit: the same command continues the run"
        )
