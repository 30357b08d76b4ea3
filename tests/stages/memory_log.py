"""An attempt log in memory, for tests."""

from __future__ import annotations


class MemoryLog:
    """An attempt log in memory.

    `at(epoch)` is the same log for the processes of a later driver, `restarted()` for those of the
    same driver after it started its graph again.
    """

    worker = "worker"

    def __init__(
        self, epoch: int = 1, kept: dict[str, bytes] | None = None, restart: int = 0
    ) -> None:
        self.epoch, self.restart = epoch, restart
        self.kept = {} if kept is None else kept

    def at(self, epoch: int) -> MemoryLog:
        return MemoryLog(epoch, self.kept)

    def restarted(self) -> MemoryLog:
        return MemoryLog(self.epoch, self.kept, self.restart + 1)

    def read(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def write(self, name: str, content: bytes) -> None:
        self.kept[name] = content

    def delete(self, name: str) -> None:
        self.kept.pop(name, None)
