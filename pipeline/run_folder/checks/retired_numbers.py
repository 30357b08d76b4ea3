"""Numbers of shards that left the input: no other shard is ever published under them.

Object stores cannot delete a file on a condition. A driver that was suspended right before a
deletion carries it out when it wakes, whatever its successor has written meanwhile. So the driver
deletes published files only under numbers that it has retired before, and no later plan uses these
numbers again, not even for the same shard.

Each driver that takes the lease writes the file once. So a driver that lost the lease cannot retire
a number that its successor uses: its write is conditional on the version before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from omnitrace_core.errors import RunError
from pipeline.storage.folder import ABSENT, Folder

RETIRED = "_retired.json"


class RetiredNumbers:
    """The retired numbers of a run, while this driver holds its lease.

    epoch: of the driver. confirm: raises if this driver may not write; see `Folder.replace`.

    Raises:
        RunError: the file of an earlier driver cannot be read.
    """

    def __init__(self, folder: Folder, epoch: int, confirm: Callable[[], None]) -> None:
        self._folder, self._epoch, self._confirm = folder, epoch, confirm
        self.numbers: frozenset[int] = frozenset()
        # Our predecessor may write between our reading and our writing.
        while not self._claim():
            continue

    def _claim(self) -> bool:
        """Read the file, and write it under our epoch; returns whether nobody wrote in between."""
        version = self._folder.version(RETIRED)
        if version != ABSENT:
            try:
                content = self._folder.read(RETIRED)
            except FileNotFoundError:
                return False
            self.numbers = frozenset(_parse(content, self._folder.url(RETIRED)))
        self._confirm()
        try:
            with self._folder.writing(RETIRED, version) as path:
                path.write_bytes(self._as_bytes())
        except (FileExistsError, FileNotFoundError):
            # The latter: another driver has deleted our temporary file as that of a killed writer.
            return False
        return True

    def add(self, numbers: Iterable[int]) -> None:
        """Retire more numbers; afterwards files under them may be deleted at any time.

        Raises:
            FileExistsError: others keep writing the file, though the run is ours.
        """
        added = frozenset(numbers) - self.numbers
        if added:
            self.numbers |= added
            self._folder.replace(RETIRED, self._as_bytes(), self._confirm)

    def _as_bytes(self) -> bytes:
        content = {"epoch": self._epoch, "ranges": list(_ranges(sorted(self.numbers)))}
        return json.dumps(content).encode()


def _parse(content: bytes, url: str) -> Iterator[int]:
    try:
        for first, last in json.loads(content)["ranges"]:
            yield from range(int(first), int(last) + 1)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise RunError(
            f"{url} does not list the numbers of shards that left the input ({error!r}); if no "
            "other driver is running, delete it and run again"
        ) from error


def _ranges(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """The first and the last number of each row of numbers without a gap."""
    first = None
    for index, number in enumerate(numbers):
        first = number if first is None else first
        if index + 1 == len(numbers) or numbers[index + 1] != number + 1:
            yield first, number
            first = None
