"""What is left to do, window by window; memory follows the shards under way, not the plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

from pipeline.planning.plan import Chunk, Plan, Shard

Skip = Callable[[int, int], None]


class Schedule:
    """Chunks without a part, in the order of the plan, and which shards are thereby complete.

    shards: those that are not published. has_part: keys of the chunks whose part is there. skip: is
    told of chunks that need not be done, by number of chunks and rows.
    """

    def __init__(
        self, plan: Plan, shards: Sequence[Shard], has_part: Collection[str], skip: Skip
    ) -> None:
        self._plan, self._has_part, self._skip = plan, has_part, skip
        self._chunks = self._pending(shards)
        self._under_way: dict[str, Shard] = {}
        self._left: dict[str, int] = {}
        self._complete: deque[Shard] = deque()

    def window(self, size: int) -> list[Chunk]:
        """The next chunks to do; none when there are none left."""
        return list(islice(self._chunks, size))

    def committed(self, shard: str) -> None:
        """Count a chunk of this shard as done."""
        self._left[shard] -= 1
        if self._left[shard] == 0:
            self._finish(shard)

    def complete(self) -> Iterator[Shard]:
        """Shards all of whose chunks have parts; each comes once."""
        while self._complete:
            yield self._complete.popleft()

    def _pending(self, shards: Sequence[Shard]) -> Iterator[Chunk]:
        for shard in shards:
            # Counted first and made again: a list of a large shard's chunks would be large, too.
            done = [item.n_rows for item in self._chunks_of(shard, done=True)]
            self._skip(len(done), sum(done))
            left = self._plan.n_chunks_of(shard) - len(done)
            self._under_way[shard.name], self._left[shard.name] = shard, left
            if not left:
                self._finish(shard.name)
            else:
                yield from self._chunks_of(shard, done=False)

    def _chunks_of(self, shard: Shard, done: bool) -> Iterator[Chunk]:
        if not self._has_part:
            return iter(()) if done else self._plan.chunks(shard)
        chunks = self._plan.chunks(shard)
        return (item for item in chunks if (item.key in self._has_part) == done)

    def _finish(self, shard: str) -> None:
        del self._left[shard]
        self._complete.append(self._under_way.pop(shard))
