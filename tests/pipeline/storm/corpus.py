"""The input of a storm, which changes under the drivers, and what a run of it has to publish."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.folder import Folder
from stages.arrow.sample_schema import SAMPLE
from tests.stages.chunks import text_row

NAMES = tuple(f"{name}.parquet" for name in "abcdef")
_MAX_ROWS = 5
_MAX_CANDIDATES = 512


@dataclass(frozen=True, slots=True)
class InputRow:
    """A row of the input. text: no other row has it, not even an earlier version of this one."""

    sample_id: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a shard. file: its Parquet file. modified_ns: its time of modification."""

    rows: tuple[InputRow, ...]
    file: bytes
    modified_ns: int


@dataclass(frozen=True, slots=True)
class ExpectedRow:
    """What `samples/` says of an input row. response: the text of the row; None for an error."""

    sample_id: str
    code: str
    response: str | None


Shards = Mapping[str, tuple[InputRow, ...]]


def expected_rows(shards: Shards) -> dict[str, ExpectedRow]:
    """The published rows of an input, by row key."""
    seen: set[str] = set()
    expected = {}
    for name in sorted(shards):
        for number, row in enumerate(shards[name]):
            code = ""
            if row.sample_id is None:
                code = "missing_sample_id"
            elif row.sample_id in seen:
                code = "duplicate_sample_id"
            else:
                seen.add(row.sample_id)
            response = None if code else row.text
            expected[f"{name}:{number}"] = ExpectedRow(row.sample_id or "", code, response)
    return expected


@dataclass(frozen=True, slots=True)
class _Change:
    """A shard's version (None: it is gone) from a time between `began` and `ended` on."""

    began: float
    ended: float
    version: Version | None


class Corpus:
    """The shards of an input folder, and all versions that they ever had.

    Times are those of `time.monotonic`, which all processes of a machine share.
    """

    def __init__(self, folder: Folder, chance: random.Random) -> None:
        self.folder = folder
        self._chance = chance
        self._n_versions = 0
        self._changed = NAMES[0]  # the shard that was changed last
        self._history: dict[str, list[_Change]] = {name: [] for name in NAMES}
        for name in NAMES[: chance.randint(2, 4)]:
            self._put(name, self._new_version())

    def change(self, kind: str, pick: int) -> bool:
        """Make a change: "add", "edit", "drop", "restore" or "revert"; whether it was possible.

        pick: chooses among the shards that can be changed. "restore" brings back an earlier
        version, with its time of modification, "revert" the one before the last change.
        """
        present = [name for name in NAMES if self._current(name) is not None]
        absent = [name for name in NAMES if self._current(name) is None]
        choices = {
            "add": absent,
            "edit": present,
            # An input without any shard is an error of its own.
            "drop": present if len(present) > 1 else [],
            "restore": [name for name in NAMES if self._earlier(name)],
            "revert": [self._changed] if self._earlier(self._changed) else [],
        }[kind]
        if not choices:
            return False
        name = choices[pick % len(choices)]
        if kind == "drop":
            self._drop(name)
        elif kind in ("restore", "revert"):
            earlier = self._earlier(name)
            self._put(name, earlier[-1 if kind == "revert" else pick % len(earlier)])
        else:
            # Of the same length, old and new rows are told apart by their texts alone.
            old = self._current(name) if pick % 2 else None
            self._put(name, self._new_version(len(old.rows) if old else None))
        return True

    def present(self) -> Shards:
        """The input as it is now."""
        current = {name: self._current(name) for name in NAMES}
        return {name: item.rows for name, item in current.items() if item is not None}

    def candidates(self, began: float, ended: float) -> Iterator[Shards] | None:
        """The inputs that a listing made between two times may have seen; None if too many.

        A listing is not atomic: it may see an old version of one shard and a new one of another.
        """
        versions = {name: self._versions(name, began, ended) for name in NAMES}
        if prod(map(len, versions.values())) > _MAX_CANDIDATES:
            return None
        return (
            {name: item.rows for name, item in zip(NAMES, chosen, strict=True) if item is not None}
            for chosen in product(*versions.values())
        )

    def _versions(self, name: str, began: float, ended: float) -> list[Version | None]:
        """The versions of a shard that could be seen between two times."""
        start = _Change(0.0, 0.0, None)
        changes = [start, *self._history[name]]
        ends = [change.ended for change in changes[1:]] + [float("inf")]
        found: list[Version | None] = []
        for change, end in zip(changes, ends, strict=True):
            if change.began <= ended and end >= began and change.version not in found:
                found.append(change.version)
        return found

    def _current(self, name: str) -> Version | None:
        history = self._history[name]
        return history[-1].version if history else None

    def _earlier(self, name: str) -> list[Version]:
        current = self._current(name)
        versions = [change.version for change in self._history[name]]
        return [item for item in versions if item is not None and item != current]

    def _new_version(self, n_rows: int | None = None) -> Version:
        self._n_versions += 1
        n_rows = self._chance.randint(0, _MAX_ROWS) if n_rows is None else n_rows
        rows = tuple(map(self._new_row, range(n_rows)))
        return Version(rows, _parquet(rows), time.time_ns())

    def _new_row(self, number: int) -> InputRow:
        # Few ids, so that many repeat.
        sample_id = None if self._chance.random() < 0.1 else f"id{self._chance.randrange(40)}"
        return InputRow(sample_id, f"Version {self._n_versions}, row {number}.")

    def _put(self, name: str, version: Version) -> None:
        began = time.monotonic()
        if self.folder.is_local:
            self._put_local(name, version)
        else:
            self.folder.write(name, version.file)
        self._note(name, began, version)

    def _put_local(self, name: str, version: Version) -> None:
        # Hidden while it is written, and so not part of the input.
        target = Path(self.folder.root, name)
        hidden = target.with_name(f".{name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(version.file)
        os.utime(hidden, ns=(version.modified_ns, version.modified_ns))
        hidden.replace(target)

    def _drop(self, name: str) -> None:
        began = time.monotonic()
        self.folder.delete(name)
        self._note(name, began, None)

    def _note(self, name: str, began: float, version: Version | None) -> None:
        self._history[name].append(_Change(began, time.monotonic(), version))
        self._changed = name


def _parquet(rows: Sequence[InputRow]) -> bytes:
    table = pa.Table.from_pylist([text_row(row.sample_id, row.text) for row in rows], SAMPLE)
    content = pa.BufferOutputStream()
    pq.write_table(table, content)
    return content.getvalue().to_pybytes()
