"""Read a published shard back, a few chunks at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnitrace_core.errors import DamagedFile, RunError
from pipeline.plurals import counted
from pipeline.run_folder.manifests import Manifest
from pipeline.run_folder.table_files import table_name
from pipeline.storage.folder import Folder
from stages.arrow.parquet_reader import ParquetReader
from stages.arrow.stored_chunk import StoredChunk, as_rows, no_rows

# Limit for a batch of several chunks: larger ones take more memory and are no faster.
_BATCH_BYTES = 8 * 1024**2
# Limits for one read: larger ones are slower, because their memory has to be allocated.
_READ_ROWS = 1024
_READ_BYTES = 4 * 1024**2
_AGAIN = "restore it, or delete it and its manifest in _manifests/ and run again"
_CHANGED = "restore it, or repeat the command of the run, which does the shard again"


def read_shard(
    folder: Folder,
    manifest: Manifest,
    chunk_samples: int,
    columns: Mapping[str, Sequence[str]],
    max_samples: int,
) -> Iterator[StoredChunk]:
    """Read a shard in batches of one or more whole chunks.

    columns: the columns to read, by table; samples/ has to be among the tables. Columns that are
    not read are null or empty. max_samples: of a batch of several chunks, which also stays below
    8 MiB.

    Raises:
        RunError: a file that the manifest names is missing or damaged, or the files do not fit
            together.
    """
    with ExitStack() as stack:
        cursors = {}
        for name, wanted in columns.items():
            address = table_name(name, manifest.number)
            file = stack.enter_context(opened_table(folder, address, manifest))
            cursors[name] = _Cursor(file, folder.url(address), wanted)
        n_bytes = sum(cursor.n_bytes for cursor in cursors.values())
        fitting = min(max_samples, _BATCH_BYTES * manifest.n_rows // max(n_bytes, 1))
        batch = max(1, fitting // chunk_samples) * chunk_samples
        for first_row in range(0, manifest.n_rows, batch):
            samples = cursors["samples"].next_rows(min(batch, manifest.n_rows - first_row))
            rows = {"samples": as_rows(samples, "samples")}
            for name in ("spans", "traces", "heatmaps"):
                if name in cursors:
                    found = cursors[name].rows_of(samples.column("row_key"))
                    rows[name] = as_rows(found, name)
                else:
                    rows[name] = no_rows(name)
            yield StoredChunk(**rows)
        for cursor in cursors.values():
            cursor.check_end()


@contextmanager
def opened_table(folder: Folder, name: str, manifest: Manifest) -> Iterator[ParquetReader]:
    """A published file that its shard's manifest names.

    Raises:
        RunError: it is missing, its footer is damaged, or it is not the one that was written.
    """
    try:
        file = folder.open(name)
    except FileNotFoundError as error:
        raise RunError(
            f"{folder.url(name)} is missing, though its manifest names it; run again"
        ) from error
    with file:
        check_size(folder, manifest, name, file.seek(0, os.SEEK_END))
        file.seek(0)
        try:
            table = ParquetReader(file)
        except DamagedFile as error:
            raise RunError(
                f"{folder.url(name)} cannot be decoded: {error.message}; {_AGAIN}"
            ) from error
        with table:
            if table.n_rows != manifest.files[name]:
                raise RunError(
                    f"{folder.url(name)} has {counted(table.n_rows, 'row')}, and its manifest "
                    f"counts {manifest.files[name]}; {_CHANGED}"
                )
            yield table


def check_size(folder: Folder, manifest: Manifest, name: str, n_bytes: int) -> None:
    """Check that a published file has as many bytes as were written, if its manifest has them.

    Raises:
        RunError: it has not.
    """
    written = manifest.sizes.get(name, n_bytes)
    if written != n_bytes:
        raise RunError(
            f"{folder.url(name)} has {n_bytes} bytes, and {written} were written; {_CHANGED}"
        )


def table_batches(
    file: ParquetReader, url: str, columns: Sequence[str], batch_size: int = _READ_ROWS
) -> Iterator[pa.RecordBatch]:
    """Columns of a published file. url: of the file. Raises: RunError if it is damaged."""
    for group in file.groups:
        try:
            yield from file.batches(group, columns, batch_size)
        except DamagedFile as error:
            raise RunError(
                f"{url}, {group} cannot be decoded: {error.message}; {_AGAIN}"
            ) from error


class _Cursor:
    """Reads the rows of a published file in order, a few at a time."""

    def __init__(self, file: ParquetReader, url: str, wanted: Sequence[str]) -> None:
        names = [name for name in file.schema.names if name in wanted]
        self._url = url
        self.n_bytes = _uncompressed(file.metadata, set(names))
        fitting = _READ_BYTES * file.n_rows // max(self.n_bytes, 1)
        batch_size = max(1, min(_READ_ROWS, fitting))
        self._batches = table_batches(file, url, names, batch_size)
        self._empty = file.schema.empty_table().select(names)
        self._buffer = self._empty  # rows that were read and not returned yet

    def next_rows(self, n_rows: int) -> pa.Table:
        """The next `n_rows` rows. Raises: RunError if the file has fewer."""
        taken = []
        while n_rows and self._fill():
            taken.append(self._cut(min(n_rows, len(self._buffer))))
            n_rows -= len(taken[-1])
        if n_rows:
            raise RunError(
                f"{self._url} lacks {counted(n_rows, 'row')} that its manifest counts; run again"
            )
        return pa.concat_tables([self._empty, *taken])

    def rows_of(self, keys: pa.ChunkedArray) -> pa.Table:
        """The next rows, up to the first one whose `row_key` is not among the keys."""
        taken = [self._empty]
        while self._fill():
            inside = pc.is_in(self._buffer.column("row_key"), value_set=keys.combine_chunks())
            n_rows = pc.index(inside, False).as_py()
            taken.append(self._cut(len(self._buffer) if n_rows < 0 else n_rows))
            if n_rows >= 0:
                break
        return pa.concat_tables(taken)

    def check_end(self) -> None:
        """Raises: RunError if rows are left."""
        if self._fill():
            key = self._buffer.column("row_key")[0].as_py()
            raise RunError(
                f"{self._url} has rows of {key}, which samples/ does not have; run again"
            )

    def _fill(self) -> bool:
        """Read until the buffer has rows; returns False at the end of the file."""
        while not len(self._buffer):
            batch = next(self._batches, None)
            if batch is None:
                return False
            self._buffer = pa.Table.from_batches([batch])
        return True

    def _cut(self, n_rows: int) -> pa.Table:
        taken, self._buffer = self._buffer.slice(0, n_rows), self._buffer.slice(n_rows)
        return taken


def _uncompressed(metadata: pq.FileMetaData, names: Set[str]) -> int:
    """Bytes of these columns in the whole file."""
    total = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema.partition(".")[0] in names:
                total += column.total_uncompressed_size
    return total
