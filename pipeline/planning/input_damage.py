"""Read the whole input once, and report the row groups that a run could not decode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omnitrace_core.errors import DamagedFile, InputSchemaError
from pipeline.planning.input_shards import InputListing
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map
from stages.arrow.parquet_reader import DamagedGroup, ParquetReader, RowGroup
from stages.arrow.sample_schema import SAMPLE

# Each holds a row group as it is stored, with its media.
_THREADS = 4


@dataclass(frozen=True, slots=True)
class ShardDamage:
    """The row groups of a shard that cannot be decoded. uri: of the shard."""

    uri: str
    groups: tuple[DamagedGroup, ...]


def find_damage(
    listing: InputListing, on_shard: Callable[[], None] = lambda: None
) -> list[ShardDamage]:
    """The damaged shards of the input, in the order of their names; reads all their samples.

    listing: of an input that was scanned. on_shard: called when a shard was read.

    Raises:
        FileNotFoundError: a shard is gone.
        InputSchemaError: a footer, which the scan could read, cannot be read now.
        StoreUnavailable: the object store does not respond.
    """

    def read(name: str) -> ShardDamage:
        return _damage_of(listing.folder, name)

    found = []
    for damage in prefetch_map(read, listing.shards, _THREADS):
        on_shard()
        if damage.groups:
            found.append(damage)
    return found


def _damage_of(folder: Folder, name: str) -> ShardDamage:
    try:
        with folder.open(name) as file, ParquetReader(file) as shard:
            columns = [column for column in shard.schema.names if column in SAMPLE.names]
            tried = [_try(shard, group, columns) for group in shard.groups]
    except DamagedFile as error:
        raise InputSchemaError(f"{folder.url(name)} cannot be read: {error.message}") from error
    return ShardDamage(folder.url(name), tuple(item for item in tried if item is not None))


def _try(shard: ParquetReader, group: RowGroup, columns: list[str]) -> DamagedGroup | None:
    """A row group that cannot be decoded; None if it can. It is read as a run reads it."""
    try:
        for _ in shard.batches(group, columns):
            pass
    except DamagedFile as error:
        return DamagedGroup.of(group, error)
    return None
