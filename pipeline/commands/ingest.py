"""`omnitrace ingest`: turn any accepted input into Parquet shards of samples.

Every record of the input becomes one row; a bad record becomes an error row of the later run. Only
a file that cannot be read at all (as JSON or Parquet) stops the ingest, which then removes its
shards.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from omnitrace_core.access.stores import is_object_store, store_of, store_prefix
from omnitrace_core.addresses import shown_address
from omnitrace_core.errors import ConfigError, InputSchemaError
from omnitrace_core.runtime.node_faults import raise_if_node_fault
from omnitrace_core.samples.forms import normalise, rejected_row
from omnitrace_core.samples.rows import FrameRow, PartRow, SampleRow
from omnitrace_core.samples.values import shorten
from pipeline.commands.input_files import InputFile, find_files
from pipeline.commands.json_records import ParsedRecord
from pipeline.planning.media_stores import media_root_metadata, store_root
from pipeline.storage.addresses import absolute_path
from pipeline.storage.folder import Folder
from stages.arrow.sample_schema import SAMPLE
from stages.arrow.table_schema import SCHEMA_VERSION

_log = logging.getLogger(__name__)

MAX_SHARD_ROWS = 10**6
# A shard with this much inline media is closed early, because it has to fit in memory.
MAX_SHARD_BYTES = 256 * 1024**2
# Small row groups, so that a run can read a chunk of rows without the media of the other rows.
ROW_GROUP_ROWS = 64


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest read and wrote.

    shards: their paths or URLs, in order. left_out: says what lies in SOURCE and was not read.
    media_roots: the addresses in stores that relative addresses of media start at. They are in the
    shards' footers, and a run may read from them. unnamed_roots: those on servers, which are not in
    the footers, because a run reads from a server only if its config says so.
    """

    files_read: int
    rows: int
    shards: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    media_roots: tuple[str, ...] = ()
    unnamed_roots: tuple[str, ...] = ()


def ingest(
    source: str,
    dest: str,
    *,
    media_root: str | None = None,
    shard_rows: int = 1024,
    inline_media: bool = False,
    overwrite: bool = False,
) -> IngestReport:
    """Write the samples of `source` as `dest/shard-00000.parquet` and so on.

    source: a .json, .jsonl or .parquet file, a directory of such files, an fsspec URL or glob.
    media_root: folder that relative media addresses start at; by default the folder of the input
        file.
    inline_media: embed the bytes of local media files. A file that cannot be read keeps its
        address, so that the run reports it. This reads any local path that the input names: use it
        for trusted input only.
    overwrite: remove the shards that `dest` has.

    The same input gives the same bytes. A shard has `shard_rows` rows, or fewer if its inline media
    exceed MAX_SHARD_BYTES. Repeated ids are kept; the run reports them.

    Raises:
        InputSchemaError: the input cannot be read as records, or has none; no shard is kept.
        ConfigError: `dest` has shards already, is a file, or holds the input; `shard_rows` is not
            from 1 to MAX_SHARD_ROWS; or `media_root` is not a valid address.
    """
    if not 1 <= shard_rows <= MAX_SHARD_ROWS:
        raise ConfigError(f"shard_rows is {shard_rows}; give from 1 to {MAX_SHARD_ROWS:,} rows")
    found = find_files(source)
    files = found.files
    target = Folder(dest)
    old_shards = _present_shards(target, files, overwrite)
    root = None if media_root is None else absolute_path(media_root)
    roots = _media_roots(files, root)
    media_roots = tuple(filter(is_object_store, roots))
    n_rows = 0
    written: list[str] = []
    try:
        for rows in _shards(_rows(files, root, inline_media), shard_rows):
            while old_shards:
                target.delete(old_shards.pop())
            name = f"shard-{len(written):05d}.parquet"
            _write(target, name, rows, media_roots)
            written.append(name)
            n_rows += len(rows)
    except BaseException:
        for name in written:  # a part of a corpus must not look like all of it
            target.delete(name)
        raise
    if not n_rows:
        raise InputSchemaError(f"{source}: {len(files)} file(s) without a single record")
    shards = tuple(map(target.url, written))
    unnamed = tuple(entry for entry in roots if entry not in media_roots)
    return IngestReport(len(files), n_rows, shards, found.left_out, media_roots, unnamed)


def _present_shards(target: Folder, files: Iterable[InputFile], overwrite: bool) -> list[str]:
    """Names of the shards to replace. Raises: ConfigError: they must not be replaced."""
    if target.is_file():
        raise ConfigError(f"{target.root} is a file; give a folder to write shards into")
    present = [name for name in target.names(suffix=".parquet") if name.startswith("shard-")]
    if present and not overwrite:
        raise ConfigError(
            f"{target.root} has {len(present)} shard(s) already, such as {present[0]}; "
            "give another folder, or --overwrite to replace them"
        )
    # Links are followed, so that no shard is deleted that is read by another name.
    read = {os.path.realpath(file.url) if target.is_local else file.url for file in files}
    replaced = (target.url(name) for name in present)
    if any((os.path.realpath(url) if target.is_local else url) in read for url in replaced):
        raise ConfigError(f"{target.root} holds the input; write the shards to another folder")
    return present


def _media_roots(files: Iterable[InputFile], root: str | None) -> list[str]:
    """The addresses in stores that relative addresses of media start at. Raises: ConfigError."""
    if root is not None:
        return [found for found in [store_root(root)] if found]
    return sorted({entry for file in files if (entry := _entry_of(file.folder))})


def _entry_of(folder: str) -> str | None:
    """A folder as an entry of `media.allow`; all of its store if its name cannot be in one."""
    try:
        return store_prefix(folder) if store_of(folder) else None
    except ValueError:
        return store_of(folder)


def _rows(files: Iterable[InputFile], root: str | None, inline: bool) -> Iterator[SampleRow]:
    for file in files:
        base = file.folder if root is None else root
        for record in file.records():
            row = _row(record, base)
            if inline:
                _embed_media(row)
            yield row


def _row(record: ParsedRecord, base: str) -> SampleRow:
    if isinstance(record.value, Mapping):
        return cast(SampleRow, normalise(record.value, base))
    reason = f"{record.where}: the record is {shorten(record.value)}, not an object"
    return cast(SampleRow, rejected_row(reason))


def _shards(rows: Iterable[SampleRow], shard_rows: int) -> Iterator[list[SampleRow]]:
    shard: list[SampleRow] = []
    n_bytes = 0
    for row in rows:
        shard.append(row)
        n_bytes += _media_bytes(row)
        if len(shard) == shard_rows or n_bytes >= MAX_SHARD_BYTES:
            yield shard
            shard, n_bytes = [], 0
    if shard:
        yield shard


def _media_bytes(row: SampleRow) -> int:
    return sum(len(item["data"]) for item in _media(row) if item["data"] is not None)


def _embed_media(row: SampleRow) -> None:
    for item in _media(row):
        path = (item["uri"] or "").removeprefix("file://")
        # Regular files only: a device or a pipe may never end.
        if item["data"] is not None or not os.path.isfile(path):
            continue
        try:
            with open(path, "rb") as handle:
                item["data"] = handle.read()
        except OSError as exc:
            raise_if_node_fault(exc)
            reason = exc.strerror or type(exc).__name__
            shown = shown_address(path)
            _log.warning("%s is kept as an address, because it cannot be read: %s", shown, reason)
        else:
            item["uri"] = None


def _media(row: SampleRow) -> Iterator[PartRow | FrameRow]:
    """What can have an address or bytes: every part, and the frames of those that are lists."""
    for message in row["messages"] or ():
        for part in filter(None, (message and message["content"]) or ()):
            yield part
            yield from filter(None, part["frames"] or ())


def _write(target: Folder, name: str, rows: list[SampleRow], media_roots: Iterable[str]) -> None:
    metadata = {"schema_version": str(SCHEMA_VERSION), **media_root_metadata(media_roots)}
    schema = SAMPLE.with_metadata(metadata)
    table = pa.Table.from_pylist(rows, schema=schema)
    with target.writing(name) as path:
        pq.write_table(
            table,
            path,
            compression="zstd",
            row_group_size=ROW_GROUP_ROWS,
            # A changed bit in a text or in media would otherwise be read as another value.
            write_page_checksum=True,
        )
    _log.info("%s: %d rows", target.url(name), len(rows))
