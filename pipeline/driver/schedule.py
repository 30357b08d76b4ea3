"""The chunks that are left to do, window by window, and the shards that become complete.

Memory follows the shards in progress, not the whole plan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Protocol

from pipeline.planning.plan import Chunk, Shard

Skip = Callable[[int, int], None]


class Work(Protocol):
    """The chunks to do of each shard; `Plan` is the work of a whole run."""

    def chunks(self, shard: Shard) -> Iterator[Chunk]: ...
    def n_chunks_of(self, shard: Shard) -> int: ...


class Schedule:
    """Hands out the chunks that are not committed, in the order of the shards.

    shards: those that are to be done. committed: keys of the chunks that are committed already.
    skip: called with the number of chunks and of rows that need not be done.
    """

    def __init__(
        self, work: Work, shards: Sequence[Shard], committed: Collection[str], skip: Skip
    ) -> None:
        self._work, self._committed, self._skip = work, committed, skip
        self._chunks = self._pending(shards)
        self._in_progress: dict[str, Shard] = {}
        self._n_left: dict[str, int] = {}
        self._complete: deque[Shard] = deque()

    def next_window(self, size: int) -> list[Chunk]:
        """The next `size` chunks to do, or fewer; empty at the end."""
        return list(islice(self._chunks, size))

    def count_committed(self, shard: str) -> None:
        """Count one more chunk of this shard as committed."""
        self._n_left[shard] -= 1
        if self._n_left[shard] == 0:
            self._finish(shard)

    @property
    def n_shards_in_progress(self) -> int:
        """Shards that are begun and not complete."""
        return len(self._in_progress)

    def pop_complete(self) -> Iterator[Shard]:
        """Shards whose chunks are all committed; yields each shard once."""
        while self._complete:
            yield self._complete.popleft()

    def _pending(self, shards: Sequence[Shard]) -> Iterator[Chunk]:
        for shard in shards:
            # Chunks are generated twice, since a list of a large shard's chunks would be large.
            done = [chunk.n_rows for chunk in self._chunks_of(shard, committed=True)]
            self._skip(len(done), sum(done))
            n_left = self._work.n_chunks_of(shard) - len(done)
            self._in_progress[shard.name], self._n_left[shard.name] = shard, n_left
            if not n_left:
                self._finish(shard.name)
            else:
                yield from self._chunks_of(shard, committed=False)

    def _chunks_of(self, shard: Shard, *, committed: bool) -> Iterator[Chunk]:
        if not self._committed:
            return iter(()) if committed else self._work.chunks(shard)
        chunks = self._work.chunks(shard)
        return (chunk for chunk in chunks if (chunk.key in self._committed) == committed)

    def _finish(self, shard: str) -> None:
        del self._n_left[shard]
        self._complete.append(self._in_progress.pop(shard))
