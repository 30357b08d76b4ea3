"""The plan of a run: its shards, their chunks, and the names under which both are stored.

Deterministic: the same input, settings and manifests give the same plan. What is left to do is the
plan minus the chunk files and manifests that exist.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from pipeline.planning.input_shards import Duplicate, ShardScan
from stages.arrow.parquet_reader import DamagedGroup


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows [first_row, first_row + n_rows) of a shard: the unit of work and of commit.

    key: hash of all that its records depend on. identity: of the shard's file when it was planned.
    duplicates: those of its rows that repeat a sample_id. rows: the numbers of its rows, in order,
    if they are error rows that are done again; then first_row is the first of them.
    """

    key: str
    shard: str
    uri: str
    first_row: int
    n_rows: int
    identity: str
    duplicates: tuple[Duplicate, ...]
    rows: tuple[int, ...] | None = None

    @property
    def row_numbers(self) -> Sequence[int]:
        """The numbers of its rows within the shard, in order."""
        return self.rows or range(self.first_row, self.first_row + self.n_rows)


@dataclass(frozen=True, slots=True)
class Shard:
    """An input shard in the plan.

    number: in the names of its published files, shard-NNNNN. name: its path within the input.
    identity: of its file. key: hash of all that its records depend on. unread_ids: row groups
    whose sample_ids cannot be decoded.
    """

    number: int
    name: str
    uri: str
    identity: str
    n_rows: int
    key: str
    duplicates: tuple[Duplicate, ...]
    unread_ids: tuple[DamagedGroup, ...] = ()

    @property
    def label(self) -> str:
        """Name of its published files, without extension."""
        return shard_label(self.number)


@dataclass(frozen=True, slots=True)
class Plan:
    """All shards of the input, in the order of their names."""

    shards: tuple[Shard, ...]
    fingerprint: str
    chunk_samples: int

    @property
    def n_rows(self) -> int:
        """Number of rows of the whole input."""
        return sum(shard.n_rows for shard in self.shards)

    @property
    def n_chunks(self) -> int:
        """Number of chunks of the whole input."""
        return sum(self.n_chunks_of(shard) for shard in self.shards)

    def n_chunks_of(self, shard: Shard) -> int:
        """Number of chunks of a shard."""
        return -(-shard.n_rows // self.chunk_samples)

    @property
    def digest(self) -> str:
        """Hash of all shards' keys and numbers: plans with equal digests publish the same files."""
        return _hash(*((shard.key, shard.number) for shard in self.shards))

    @property
    def inputs_digest(self) -> str:
        """Hash of the listed input and the settings; see `digest_inputs`."""
        identities = {shard.name: shard.identity for shard in self.shards}
        return digest_inputs(identities, self.fingerprint, self.chunk_samples)

    def with_published_numbers(
        self, published: Mapping[str, int], retired: Set[int] = frozenset()
    ) -> Plan:
        """The same plan, with the numbers under which its shards were published meanwhile.

        published: number of each shard name that has a manifest. retired: numbers that no shard
        gets.
        """
        numbers = assign_numbers([shard.name for shard in self.shards], published, retired)
        shards = [replace(shard, number=numbers[shard.name]) for shard in self.shards]
        return replace(self, shards=tuple(shards))

    def chunks(self, shard: Shard) -> Iterator[Chunk]:
        """The shard's chunks in order; not stored, so that a plan of many chunks stays small."""
        for first_row in range(0, shard.n_rows, self.chunk_samples):
            n_rows = min(self.chunk_samples, shard.n_rows - first_row)
            end = first_row + n_rows
            first = _n_duplicates_before(shard, first_row)
            duplicates = shard.duplicates[first : _n_duplicates_before(shard, end)]
            key = _hash(
                shard.uri,
                shard.identity,
                first_row,
                n_rows,
                self.fingerprint,
                _as_pairs(duplicates),
            )
            yield Chunk(key, shard.name, shard.uri, first_row, n_rows, shard.identity, duplicates)

    def retry_chunks(self, shard: Shard, rows: Sequence[int], retry: int) -> Iterator[Chunk]:
        """These rows of the shard in chunks of their own. retry: number of the retry.

        Each retry gives other keys, so that it does not find the chunk files of an earlier one.
        """
        repeats = {item.row: item for item in shard.duplicates}
        for start in range(0, len(rows), self.chunk_samples):
            taken = tuple(rows[start : start + self.chunk_samples])
            yield Chunk(
                key=_hash("retry", shard.key, retry, taken),
                shard=shard.name,
                uri=shard.uri,
                first_row=taken[0],
                n_rows=len(taken),
                identity=shard.identity,
                duplicates=tuple(repeats[row] for row in taken if row in repeats),
                rows=taken,
            )


def digest_inputs(identities: Mapping[str, str], fingerprint: str, chunk_samples: int) -> str:
    """Hash of the input's shards and of the settings, computed without opening a shard.

    identities: of each shard's file, by the shard's name.
    """
    return _hash(sorted(identities.items()), fingerprint, chunk_samples)


def make_plan(
    scans: Sequence[ShardScan],
    fingerprint: str,
    chunk_samples: int,
    published: Mapping[str, int],
) -> Plan:
    """Plan a run.

    scans: of all shards, in the order of their names. published: number of each shard name that
    already has a manifest.
    """
    numbers = assign_numbers([scan.name for scan in scans], published)
    shards = []
    for scan in scans:
        key = _hash(scan.uri, scan.identity, scan.n_rows, fingerprint, _as_pairs(scan.duplicates))
        shard = Shard(
            numbers[scan.name],
            scan.name,
            scan.uri,
            scan.identity,
            scan.n_rows,
            key,
            scan.duplicates,
            scan.unread_ids,
        )
        shards.append(shard)
    return Plan(tuple(shards), fingerprint, chunk_samples)


def assign_numbers(
    names: Sequence[str], published: Mapping[str, int], retired: Set[int] = frozenset()
) -> dict[str, int]:
    """Number the shards: each keeps the number it was published under, others get free numbers.

    For an unchanged input the numbers follow the sorted names, however much of it is published.
    When shards are added or removed, the others keep their numbers and so their files. A number
    that was published or retired is never free, even if its shard has left the input: its files
    are deleted, perhaps late (decision 034).
    """
    kept = {name: published[name] for name in names if name in published}
    taken = {*published.values(), *retired}
    free = (number for number in range(len(names) + len(taken)) if number not in taken)
    return {name: kept[name] if name in kept else next(free) for name in sorted(names)}


def shard_label(number: int) -> str:
    """Name of the published files of a shard, without extension."""
    return f"shard-{number:05d}"


def number_of_label(label: str) -> int | None:
    """The number of a shard's label; None if it is not the label of any shard."""
    digits = label.removeprefix("shard-")
    is_label = digits.isascii() and digits.isdigit() and shard_label(int(digits)) == label
    return int(digits) if is_label else None


def _n_duplicates_before(shard: Shard, row: int) -> int:
    return bisect_left(shard.duplicates, row, key=lambda item: item.row)


def _as_pairs(duplicates: Sequence[Duplicate]) -> list[tuple[int, str]]:
    return [(item.row, item.first_row_key) for item in duplicates]


def _hash(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]
