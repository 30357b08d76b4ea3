"""The input as it stands: its shards, whether they can be read as samples, and repeated ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from omnitrace_core.errors import InputSchemaError, StoreCredentials, StoreUnavailable
from pipeline.io import Storage
from stages.input_schema import schema_problems
from stages.read_samples import row_key

REMEDY = "`omnitrace ingest SOURCE DEST` writes shards that can be read"
_SCAN_THREADS = 8


@dataclass(frozen=True, slots=True)
class Scan:
    """One input shard.

    name: its path within the input, which stays when other shards come and go.
    digests: [n_rows, 2] uint64, the 128-bit hash of each sample_id (of the row key where it has
    none, so that missing ids are never taken for repeats of each other).
    """

    name: str
    uri: str
    identity: str
    n_rows: int
    digests: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A row whose sample_id an earlier row has."""

    row: int
    first_row_key: str


def scan_input(path: str) -> list[Scan]:
    """Read every shard's footer and sample_id column, in the order of the shards' names.

    Costs about a microsecond and, with `find_duplicates`, 50 bytes of memory per row.

    Raises:
        InputSchemaError: there is no input, or a shard cannot be read as samples.
    """
    storage, shards = list_shards(path)
    with ThreadPoolExecutor(_SCAN_THREADS) as pool:
        return list(pool.map(lambda name: _scan(storage, name, shards[name]), shards))


def list_shards(path: str) -> tuple[Storage, dict[str, str]]:
    """The folder of the input and its shards there: identity by name, in the order of the names.

    In an object store: one request per 1,000 files.

    Raises:
        InputSchemaError: nothing is there, or no shard is.
    """
    storage = Storage(path)
    if storage.is_file():
        parent, _, name = storage.root.rpartition("/")
        folder = Storage(parent)
        return folder, {name: folder.identity(name)}
    found = storage.tree_listing(".parquet")
    shards = {name: found[name] for name in sorted(found) if not _hidden(name)}
    if not shards:
        state = "holds no .parquet shard" if storage.exists() else "does not exist"
        raise InputSchemaError(f"input.path={path!r} {state}; {REMEDY}")
    return storage, shards


def _hidden(name: str) -> bool:
    return any(part.startswith(("_", ".")) for part in name.split("/"))


def _scan(storage: Storage, name: str, identity: str) -> Scan:
    uri = storage.url(name)
    try:
        with storage.open(name) as file, pq.ParquetFile(file) as shard:
            if problems := schema_problems(shard.schema_arrow):
                raise InputSchemaError(
                    f"{uri} cannot be read as samples: {'; '.join(problems)}; {REMEDY}"
                )
            digests = _digests(_sample_ids(shard), name)
    except (StoreUnavailable, StoreCredentials):
        raise
    except (OSError, pa.ArrowException) as error:
        raise InputSchemaError(
            f"{uri} is not a readable Parquet file ({error}); {REMEDY}"
        ) from error
    return Scan(name, uri, identity, len(digests), digests)


def _sample_ids(shard: pq.ParquetFile) -> Iterator[str | None]:
    for batch in shard.iter_batches(columns=["sample_id"], use_threads=False):
        yield from batch.column(0).cast(pa.string()).to_pylist()


def _digests(sample_ids: Iterator[str | None], shard: str) -> NDArray[np.uint64]:
    hashed = bytearray()
    for row, sample_id in enumerate(sample_ids):
        told = (
            f"id\0{sample_id}" if sample_id and sample_id.strip() else f"row\0{row_key(shard, row)}"
        )
        hashed += hashlib.blake2b(told.encode(), digest_size=16).digest()
    return np.frombuffer(bytes(hashed), dtype=np.uint64).reshape(-1, 2)


def find_duplicates(scans: Sequence[Scan]) -> dict[str, tuple[Duplicate, ...]]:
    """For each shard that has any, the rows whose sample_id stands earlier in the input."""
    if not scans:
        return {}
    digests = np.concatenate([scan.digests for scan in scans])
    # lexsort is stable: rows of one id stay in the order of the input, the first one first.
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ranked = digests[order]
    repeated = np.zeros(len(ranked), dtype=bool)
    repeated[1:] = (ranked[1:] == ranked[:-1]).all(axis=1)
    first_of = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(ranked))))
    starts = np.cumsum([0, *(scan.n_rows for scan in scans)])
    found: dict[str, list[Duplicate]] = {}
    for place in np.flatnonzero(repeated):
        shard, row = _locate(starts, int(order[place]))
        first_shard, first_row = _locate(starts, int(order[first_of[place]]))
        duplicate = Duplicate(row, row_key(scans[first_shard].name, first_row))
        found.setdefault(scans[shard].name, []).append(duplicate)
    return {
        name: tuple(sorted(duplicates, key=lambda item: item.row))
        for name, duplicates in found.items()
    }


def _locate(starts: NDArray[np.int64], position: int) -> tuple[int, int]:
    """Shard and row of a position in the whole input."""
    shard = int(np.searchsorted(starts, position, side="right")) - 1
    return shard, position - int(starts[shard])
