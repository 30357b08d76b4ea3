"""List the input's shards, check that they hold samples, and find repeated sample_ids."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from omnitrace_core.addresses import shown_address
from omnitrace_core.errors import (
    DamagedFile,
    InputSchemaError,
    RunError,
    StoreCredentials,
    StoreUnavailable,
)
from omnitrace_core.runtime.node_faults import raise_if_node_fault
from omnitrace_core.storage.files import FileChanged, check_mount_of, open_version
from pipeline.planning.media_stores import media_roots_of
from pipeline.planning.repeated_ids import BUDGET_BYTES, Places, RepeatedIds
from pipeline.plurals import counted
from pipeline.storage.addresses import HIDDEN_BY, is_hidden, name_problem
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map
from stages.arrow.chunk import row_key
from stages.arrow.input_columns import schema_problems
from stages.arrow.parquet_reader import DamagedGroup, ParquetReader
from stages.arrow.plain_types import plain

log = logging.getLogger(__name__)

REMEDY = "`omnitrace ingest SOURCE DEST` writes shards that can be read"
SCAN_THREADS = 8
_MAX_SHOWN = 5  # damaged row groups of a shard, in the log
_MAX_REFUSED = 20  # shards that a message names
# A place in the input is one integer: the shard's number, then 40 bits for the row.
_ROW_BITS = 40
_ROW_MASK = (1 << _ROW_BITS) - 1


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A row of a shard whose sample_id an earlier row of the input has."""

    row: int
    first_row_key: str


@dataclass(frozen=True, slots=True)
class ShardScan:
    """An input shard after its footer and its sample_ids were read.

    name: its path within the input; it does not change when other shards are added or removed.
    duplicates: the rows whose sample_id is that of an earlier row of the input, in order. Missing
    ids are not compared. unread_ids: row groups whose sample_ids cannot be decoded; repeats of them
    are not found. media_roots: the stores that `ingest` wrote into its footer.
    """

    name: str
    uri: str
    identity: str
    n_rows: int
    duplicates: tuple[Duplicate, ...] = ()
    unread_ids: tuple[DamagedGroup, ...] = ()
    media_roots: tuple[str, ...] = ()


class UnreadableShards(InputSchemaError):
    """Shards that cannot be read as samples; the message names them.

    names: all of them, as in the listing.
    """

    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class InputListing:
    """The shards of the input, none of which is opened.

    folder: of the input. shards: identity of each shard by its name, in the order of the names.
    left_out: says what else lies in the folder and is not read, a line per kind.
    """

    folder: Folder
    shards: dict[str, str]
    left_out: tuple[str, ...] = ()


def scan_input(
    listing: InputListing, budget_bytes: int = BUDGET_BYTES, *, roots: bool = True
) -> list[ShardScan]:
    """Read every shard's footer and sample_id column, in the order of the shards' names.

    roots: read the stores that the footers name, which do not count where `media.allow` is set.
    budget_bytes: memory for hashes of ids, as in `RepeatedIds`. Besides, memory grows by a
    `ShardScan` per shard and a `Duplicate` per repeated row.

    Raises:
        UnreadableShards: some cannot be read as samples.
        NodeFault: this machine cannot read it.
    """
    folder, shards = listing.folder, listing.shards
    refused: dict[str, InputSchemaError] = {}
    with RepeatedIds(budget_bytes) as ids:

        def scan(numbered_name: tuple[int, str]) -> ShardScan | None:
            number, name = numbered_name
            try:
                return _scan(folder, name, shards[name], number, ids, roots)
            except InputSchemaError as error:
                refused[name] = error
                return None

        found = list(prefetch_map(scan, enumerate(shards), SCAN_THREADS))
        if refused:
            raise _unreadable(refused)
        scans = [item for item in found if item is not None]
        return _with_duplicates(scans, *ids.repeats())


def _unreadable(refused: Mapping[str, InputSchemaError]) -> UnreadableShards:
    """One error for all shards that are refused, by name."""
    reasons = [refused[name].message for name in sorted(refused)]
    text = reasons[0]
    if len(reasons) > 1:
        lines = reasons[:_MAX_REFUSED]
        if left := len(reasons) - len(lines):
            lines.append(f"and {counted(left, 'other')}")
        text = "\n  ".join([f"{counted(len(reasons), 'shard')} cannot be read:", *lines])
    error = UnreadableShards(text)
    error.names = frozenset(refused)
    return error


def media_roots(scans: Sequence[ShardScan]) -> tuple[str, ...]:
    """The addresses in stores that the shards name, sorted."""
    return tuple(sorted({root for scan in scans for root in scan.media_roots}))


def list_input(path: str) -> InputListing:
    """List the shards of the input. In an object store: one request per 1,000 files.

    Raises:
        InputSchemaError: there is no such file or folder, it holds no shard, or the name of one
            cannot be read or published.
        NodeFault: the local file system that it lies on does not answer.
    """
    folder = Folder(path)
    # First, because a folder on a lost mount looks as if it were not there.
    check_mount_of(folder.url("x"))
    if folder.is_file():
        parent, _, name = folder.root.rpartition("/")
        folder = Folder(parent or "/")
        return InputListing(folder, {name: folder.identity(name)})
    found = folder.tree_listing("")
    named = sorted(name for name in found if name.lower().endswith(".parquet"))
    shards = {name: found[name] for name in named if not is_hidden(name)}
    for name in shards:
        if problem := name_problem(folder.root, name):
            raise InputSchemaError(f"{folder.url(name)!r}: {problem}")
    left_out = tuple(_left_out(found, named))
    if not shards:
        state = "holds no .parquet shard" if folder.exists() else "does not exist"
        state += "".join(f", but {kind}" for kind in left_out)
        raise InputSchemaError(f"input.path={path!r} {state}; {REMEDY}")
    return InputListing(folder, shards, left_out)


def _left_out(found: Iterable[str], named: Sequence[str]) -> Iterator[str]:
    """What is not read. found: all names of files; named: those that end as shards do."""
    hidden = [name for name in named if is_hidden(name)]
    if hidden:
        yield (f"{counted(len(hidden), 'hidden shard')} ({HIDDEN_BY}), such as {hidden[0]}")
    others = sorted({name for name in found if not is_hidden(name)}.difference(named))
    if others:
        yield f"{counted(len(others), 'file')} without .parquet, such as {others[0]}"


def _scan(
    folder: Folder, name: str, identity: str, number: int, ids: RepeatedIds, roots: bool
) -> ShardScan:
    uri = folder.url(name)
    try:
        with open_version(uri, identity) as file, ParquetReader(file) as shard:
            if problems := schema_problems(shard.schema):
                raise InputSchemaError(
                    f"{uri} cannot be read as samples: {'; '.join(problems)}; {REMEDY}"
                )
            media_roots = media_roots_of(shard.schema, uri) if roots else ()
            unread = tuple(_add_all_ids(shard, number, ids))
            n_rows = shard.n_rows
    except FileChanged as error:
        # Else its ids would count under the identity of another version, which may come back.
        raise RunError(f"{uri} changed while the run was planned; start the run again") from error
    except (StoreUnavailable, StoreCredentials):
        raise
    except FileNotFoundError as error:
        raise InputSchemaError(
            f"{uri} is not a readable Parquet file (it was removed while the run was planned, or "
            f"is a link that leads nowhere); {REMEDY}"
        ) from error
    except (OSError, DamagedFile) as error:
        raise_if_node_fault(error)
        check_mount_of(uri)
        raise InputSchemaError(
            f"{uri} is not a readable Parquet file ({error}); {REMEDY}"
        ) from error
    if unread:
        log.warning(
            "%s: sample_ids that cannot be decoded, so that repeats of them are not found: %s; "
            "`omnitrace validate` lists all that is damaged",
            shown_address(uri),
            _named(unread),
        )
    return ShardScan(name, uri, identity, n_rows, unread_ids=unread, media_roots=media_roots)


def _add_all_ids(shard: ParquetReader, number: int, ids: RepeatedIds) -> Iterator[DamagedGroup]:
    """Add a shard's sample_ids; yields the row groups in which they cannot be decoded."""
    for group in shard.groups:
        try:
            column = shard.read(group, ["sample_id"]).column(0)
        except DamagedFile as error:
            yield DamagedGroup.of(group, error)
            continue
        first_row = group.first_row
        for chunk in column.chunks:
            add_ids(chunk, number, first_row, ids)
            first_row += len(chunk)


def _named(damaged: Sequence[DamagedGroup]) -> str:
    shown = [str(item) for item in damaged[:_MAX_SHOWN]]
    left = len(damaged) - len(shown)
    return "; ".join(shown) + (f" and {counted(left, 'other')}" if left else "")


def add_ids(column: pa.Array, shard: int, first_row: int, ids: RepeatedIds) -> None:
    """Add a shard's sample_ids from `first_row` on; missing ids are left out."""
    hashed, rows = bytearray(), []
    for row, sample_id in enumerate(_texts(column), start=first_row):
        if sample_id and sample_id.strip():
            hashed += hashlib.blake2b(sample_id.encode(), digest_size=16).digest()
            rows.append(row)
    digests = np.frombuffer(bytes(hashed), dtype=np.uint64).reshape(-1, 2)
    ids.add(digests, np.array(rows, np.uint64) + np.uint64(shard << _ROW_BITS))


def _texts(column: pa.Array) -> list[str | None]:
    """A column's texts; None for one that is not UTF-8, whose row becomes an error row later."""
    column = plain(column)
    try:
        texts: list[str | None] = column.cast(pa.string()).to_pylist()
    except (UnicodeDecodeError, pa.ArrowInvalid):
        encoded = column.cast(pa.binary()).to_pylist()
        return [None if raw is None else _decode(raw) for raw in encoded]
    return texts


def _decode(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _with_duplicates(scans: Sequence[ShardScan], places: Places, firsts: Places) -> list[ShardScan]:
    """The scans, each with its duplicates.

    places: of repeated ids, ascending. firsts: for each, the first place of the same id.
    """
    shards = (places >> np.uint64(_ROW_BITS)).astype(np.int64)
    ends = np.searchsorted(shards, np.arange(len(scans)), side="right")
    starts = [0, *ends[:-1]]
    return [
        replace(scan, duplicates=tuple(_duplicates(scans, places[a:b], firsts[a:b])))
        for scan, a, b in zip(scans, starts, ends, strict=True)
    ]


def _duplicates(scans: Sequence[ShardScan], places: Places, firsts: Places) -> Iterator[Duplicate]:
    for place, first in zip(places.tolist(), firsts.tolist(), strict=True):
        first_row_key = row_key(scans[first >> _ROW_BITS].name, first & _ROW_MASK)
        yield Duplicate(place & _ROW_MASK, first_row_key)
