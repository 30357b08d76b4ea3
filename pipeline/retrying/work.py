"""The work of a retry: the chosen error rows of published shards, in chunks of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pipeline.planning.plan import Chunk, Shard
from pipeline.retrying.choice import Retry
from pipeline.retrying.shard import ErrorRows, find_error_rows, publish_retried_shard
from pipeline.run_folder.manifests import Manifest
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.storage.prefetch import prefetch_map

_READERS = 8  # threads


class RetriedShards:
    """The chunks of a retry; as `Plan` gives those of a run.

    shards: those with chosen rows, in the order in which their chunks are asked for. Memory: the
    row numbers of the shards in progress, and of the next few.
    """

    def __init__(self, planned: PlannedRun, retry: Retry, shards: Sequence[Shard]) -> None:
        self._planned, self._retry = planned, retry
        self._found = prefetch_map(self._find, shards, _READERS)
        self._errors: dict[str, ErrorRows] = {}

    def chunks(self, shard: Shard) -> Iterator[Chunk]:
        """The chunks of a shard's chosen rows, in order."""
        rows = self._errors_of(shard).rows
        return self._planned.plan.retry_chunks(shard, rows, self._retry.number)

    def n_chunks_of(self, shard: Shard) -> int:
        """Number of chunks of a shard's chosen rows."""
        return -(-len(self._errors_of(shard).rows) // self._planned.plan.chunk_samples)

    def publish(self, shard: Shard, confirm: Callable[[], None], epoch: int) -> Manifest:
        """Publish a shard again whose chunks of this retry are all committed."""
        manifest = publish_retried_shard(
            self._planned.folder,
            shard.number,
            self._retry,
            self._errors_of(shard),
            list(self.chunks(shard)),
            confirm,
            epoch,
        )
        del self._errors[shard.name]
        return manifest

    def _errors_of(self, shard: Shard) -> ErrorRows:
        while shard.name not in self._errors:
            name, errors = next(self._found)
            self._errors[name] = errors
        return self._errors[shard.name]

    def _find(self, shard: Shard) -> tuple[str, ErrorRows]:
        manifest = self._planned.manifests[shard.name]
        return shard.name, find_error_rows(self._planned.folder, manifest, self._retry.choice)
