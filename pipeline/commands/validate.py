"""`omnitrace validate`: read the samples of the whole input, and say how far it is."""

from __future__ import annotations

import time
from dataclasses import replace

from pipeline.commands.terminal import print_error
from pipeline.planning.input_damage import ShardDamage, find_damage
from pipeline.planning.input_shards import InputListing, UnreadableShards
from pipeline.plurals import counted

_EVERY_S = 10.0


def read_samples_of(listing: InputListing, every_s: float = _EVERY_S) -> list[ShardDamage]:
    """The damaged shards of the input; prints a line to stderr each time `every_s` has passed.

    Raises: as `find_damage`.
    """
    n_read, printed = 0, time.monotonic()

    def on_shard() -> None:
        nonlocal n_read, printed
        n_read += 1
        if time.monotonic() - printed >= every_s:
            printed = time.monotonic()
            print_error(f"reading the samples: {n_read} of {counted(len(listing.shards), 'shard')}")

    return find_damage(listing, on_shard)


def damage_of_others(listing: InputListing, refused: UnreadableShards) -> list[ShardDamage]:
    """As `read_samples_of`, without the shards that were refused."""
    kept = {name: it for name, it in listing.shards.items() if name not in refused.names}
    return read_samples_of(replace(listing, shards=kept))
