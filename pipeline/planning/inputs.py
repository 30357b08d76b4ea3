"""The input as it stands: its shards, whether they can be read as samples, and repeated ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnitrace_core.errors import InputSchemaError, StoreCredentials, StoreUnavailable
from pipeline.planning.repeated_ids import BUDGET_BYTES, Places, RepeatedIds
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map
from stages.arrow.input_schema import schema_problems
from stages.read_samples import row_key

REMEDY = "`omnitrace ingest SOURCE DEST` writes shards that can be read"
SCAN_THREADS = 8
# A place in the input: the shard's number, then the row.
_ROW_BITS = 40
_ROWS = (1 << _ROW_BITS) - 1


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A row whose sample_id an earlier row has."""

    row: int
    first_row_key: str


@dataclass(frozen=True, slots=True)
class Scan:
    """One input shard.

    name: its path within the input, which stays when other shards come and go. duplicates: the rows
    whose sample_id stands earlier in the input, in order; a missing id repeats none.
    """

    name: str
    uri: str
    identity: str
    n_rows: int
    duplicates: tuple[Duplicate, ...] = ()


@dataclass(frozen=True, slots=True)
class InputListing:
    """The shards of the input, before any of them is opened.

    folder: where they lie. shards: identity by name, in the order of the names.
    """

    folder: Folder
    shards: dict[str, str]


def scan_input(listing: InputListing, budget_bytes: int = BUDGET_BYTES) -> list[Scan]:
    """Read every shard's footer and sample_id column, in the order of the shards' names.

    budget_bytes: of hashes of ids in memory, as in `RepeatedIds`. What else grows is a `Scan` per
    shard, and a `Duplicate` per repeated row.

    Raises:
        InputSchemaError: a shard cannot be read as samples.
    """
    folder, shards = listing.folder, listing.shards
    with RepeatedIds(budget_bytes) as ids:

        def scan(numbered: tuple[int, str]) -> Scan:
            return _scan(folder, numbered[1], shards[numbered[1]], numbered[0], ids)

        scans = list(prefetch_map(scan, enumerate(shards), SCAN_THREADS))
        return _with_duplicates(scans, *ids.repeats())


def list_input(path: str) -> InputListing:
    """List the shards of the input. In an object store: one request per 1,000 files.

    Raises:
        InputSchemaError: nothing is there, or no shard is.
    """
    storage = Folder(path)
    if storage.is_file():
        parent, _, name = storage.root.rpartition("/")
        folder = Folder(parent)
        return InputListing(folder, {name: folder.identity(name)})
    found = storage.tree_listing(".parquet")
    shards = {name: found[name] for name in sorted(found) if not _hidden(name)}
    if not shards:
        state = "holds no .parquet shard" if storage.exists() else "does not exist"
        raise InputSchemaError(f"input.path={path!r} {state}; {REMEDY}")
    return InputListing(storage, shards)


def _hidden(name: str) -> bool:
    return any(part.startswith(("_", ".")) for part in name.split("/"))


def _scan(storage: Folder, name: str, identity: str, number: int, ids: RepeatedIds) -> Scan:
    uri = storage.url(name)
    try:
        with storage.open(name) as file, pq.ParquetFile(file) as shard:
            if problems := schema_problems(shard.schema_arrow):
                raise InputSchemaError(
                    f"{uri} cannot be read as samples: {'; '.join(problems)}; {REMEDY}"
                )
            first_row = 0
            for batch in shard.iter_batches(columns=["sample_id"], use_threads=False):
                add_ids(batch.column(0), number, first_row, ids)
                first_row += len(batch)
    except (StoreUnavailable, StoreCredentials):
        raise
    except (OSError, pa.ArrowException) as error:
        raise InputSchemaError(
            f"{uri} is not a readable Parquet file ({error}); {REMEDY}"
        ) from error
    return Scan(name, uri, identity, first_row)


def add_ids(column: pa.Array, shard: int, first_row: int, ids: RepeatedIds) -> None:
    """Add the ids of rows `first_row` and on of a shard; a missing one is none."""
    hashed, rows = bytearray(), []
    for row, sample_id in enumerate(_texts(column), start=first_row):
        if sample_id and sample_id.strip():
            hashed += hashlib.blake2b(sample_id.encode(), digest_size=16).digest()
            rows.append(row)
    digests = np.frombuffer(bytes(hashed), dtype=np.uint64).reshape(-1, 2)
    ids.add(digests, np.array(rows, np.uint64) + np.uint64(shard << _ROW_BITS))


def _texts(column: pa.Array) -> list[str | None]:
    """A column's texts; what is not UTF-8 is none (reading its row makes that an error)."""
    try:
        texts: list[str | None] = column.cast(pa.string()).to_pylist()
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return [None if raw is None else _text(raw) for raw in column.cast(pa.binary()).to_pylist()]
    return texts


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _with_duplicates(scans: Sequence[Scan], places: Places, firsts: Places) -> list[Scan]:
    """The scans, each with its rows among the places of repeated ids. places: ascending."""
    shards = (places >> np.uint64(_ROW_BITS)).astype(np.int64)
    ends = np.searchsorted(shards, np.arange(len(scans)), side="right")
    starts = [0, *ends[:-1]]
    return [
        replace(scan, duplicates=tuple(_duplicates(scans, places[a:b], firsts[a:b])))
        for scan, a, b in zip(scans, starts, ends, strict=True)
    ]


def _duplicates(scans: Sequence[Scan], places: Places, firsts: Places) -> Iterator[Duplicate]:
    for place, first in zip(places.tolist(), firsts.tolist(), strict=True):
        first_row_key = row_key(scans[first >> _ROW_BITS].name, first & _ROWS)
        yield Duplicate(place & _ROWS, first_row_key)
