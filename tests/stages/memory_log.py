"""An attempt log in memory, for tests."""

from __future__ import annotations


class MemoryLog:
    """An attempt log in memory; `at(epoch)` is the same log for the processes of a later driver."""

    worker = "worker"

    def __init__(self, epoch: int = 1, kept: dict[str, bytes] | None = None) -> None:
        self.epoch = epoch
        self.kept = {} if kept is None else kept

    def at(self, epoch: int) -> MemoryLog:
        return MemoryLog(epoch, self.kept)

    def read(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def write(self, name: str, content: bytes) -> None:
        self.kept[name] = content

    def delete(self, name: str) -> None:
        self.kept.pop(name, None)
