"""The plan: which rows of which shard are one chunk, and under which names all of it is kept.

Deterministic: the same input, settings and manifests give the same plan. What is left to do is the
plan minus the parts and manifests that exist.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.planning.inputs import Duplicate, Scan


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows [first_row, first_row + n_rows) of a shard: the unit of work and of commit.

    identity: of the shard when it was planned.
    """

    key: str
    shard: str
    uri: str
    first_row: int
    n_rows: int
    identity: str
    duplicates: tuple[Duplicate, ...]


@dataclass(frozen=True, slots=True)
class CommittedChunk:
    """A finished chunk, as the graph reports it to the driver.

    n_tokens: generated tokens of its ok rows. trace_s: seconds of generation and replay.
    """

    chunk_key: str
    shard: str
    n_rows: int
    n_error: int
    n_tokens: int = 0
    trace_s: float = 0.0


# Does the work of chunks, in any order, and yields each as soon as it is committed.
ExecuteChunks = Callable[[Sequence[Chunk]], Generator[CommittedChunk, None, None]]


@dataclass(frozen=True, slots=True)
class Shard:
    """An input shard in the plan.

    number: of its published files, shard-NNNNN. key: hash of all that its records depend on.
    """

    number: int
    name: str
    uri: str
    identity: str
    n_rows: int
    key: str
    duplicates: tuple[Duplicate, ...]

    @property
    def label(self) -> str:
        """Name of its published files."""
        return shard_label(self.number)


@dataclass(frozen=True, slots=True)
class Plan:
    """All shards of the input in the order of their names."""

    shards: tuple[Shard, ...]
    fingerprint: str
    chunk_samples: int

    @property
    def n_rows(self) -> int:
        """Rows of the whole input."""
        return sum(shard.n_rows for shard in self.shards)

    @property
    def n_chunks(self) -> int:
        """Chunks of the whole input."""
        return sum(self.n_chunks_of(shard) for shard in self.shards)

    def n_chunks_of(self, shard: Shard) -> int:
        """Chunks of a shard."""
        return -(-shard.n_rows // self.chunk_samples)

    @property
    def digest(self) -> str:
        """Hash of all shards' keys and numbers: two plans with the same one publish the same."""
        return _hash(*((shard.key, shard.number) for shard in self.shards))

    @property
    def inputs(self) -> str:
        """Hash of all that a listing of the input tells, and of what shapes the records."""
        listed = {shard.name: shard.identity for shard in self.shards}
        return inputs_digest(listed, self.fingerprint, self.chunk_samples)

    def numbered(self, published: Mapping[str, int]) -> Plan:
        """The same plan with the numbers that its shards were published under meanwhile."""
        numbers = assign_numbers([shard.name for shard in self.shards], published)
        shards = [replace(shard, number=numbers[shard.name]) for shard in self.shards]
        return replace(self, shards=tuple(shards))

    def chunks(self, shard: Shard) -> Iterator[Chunk]:
        """The shard's chunks in order; made when asked for, so that a plan stays small."""
        for first_row in range(0, shard.n_rows, self.chunk_samples):
            n_rows = min(self.chunk_samples, shard.n_rows - first_row)
            end = first_row + n_rows
            inside = shard.duplicates[_before(shard, first_row) : _before(shard, end)]
            key = _hash(
                shard.uri, shard.identity, first_row, n_rows, self.fingerprint, _told(inside)
            )
            yield Chunk(key, shard.name, shard.uri, first_row, n_rows, shard.identity, inside)


def inputs_digest(listed: Mapping[str, str], fingerprint: str, chunk_samples: int) -> str:
    """Hash of the input's shards, each with its identity, and of what shapes the records."""
    return _hash(sorted(listed.items()), fingerprint, chunk_samples)


def make_plan(
    scans: Sequence[Scan],
    fingerprint: str,
    chunk_samples: int,
    published: Mapping[str, int],
) -> Plan:
    """Plan a run.

    published: number of each shard name that already has a manifest.
    """
    numbers = assign_numbers([scan.name for scan in scans], published)
    shards = []
    for scan in scans:
        repeats = scan.duplicates
        key = _hash(scan.uri, scan.identity, scan.n_rows, fingerprint, _told(repeats))
        number = numbers[scan.name]
        shards.append(Shard(number, scan.name, scan.uri, scan.identity, scan.n_rows, key, repeats))
    return Plan(tuple(shards), fingerprint, chunk_samples)


def assign_numbers(names: Sequence[str], published: Mapping[str, int]) -> dict[str, int]:
    """A number for each shard name: the one it was published under, else the lowest free ones.

    For an unchanged input this is the sorted order, however much of it is already published. When
    shards come or go, those that stay keep their files.
    """
    kept = {name: published[name] for name in names if name in published}
    taken = set(kept.values())
    free = (number for number in range(len(names) + len(taken)) if number not in taken)
    return {name: kept[name] if name in kept else next(free) for name in sorted(names)}


def shard_label(number: int) -> str:
    """Name of the published files of a shard, without their ending."""
    return f"shard-{number:05d}"


def _before(shard: Shard, row: int) -> int:
    """How many of the shard's repeated ids stand before a row."""
    return bisect_left(shard.duplicates, row, key=lambda item: item.row)


def _told(duplicates: Sequence[Duplicate]) -> list[tuple[int, str]]:
    return [(item.row, item.first_row_key) for item in duplicates]


def _hash(*told: object) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
