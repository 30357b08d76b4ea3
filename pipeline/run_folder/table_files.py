"""Write a shard's Parquet files, one per table, and decide where their row groups end.

The bytes of a file depend on nothing but the records and the chunks they come in, not on how the
records lay in memory. So curating a run again with the same settings gives the same files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.planning.plan import shard_label
from pipeline.storage.folder import Folder
from pipeline.totals.shard_totals import Totals, added, totals_of
from stages.arrow.columns import combined
from stages.arrow.table_schema import TABLES

STAGED = "_staged"  # folder of files that will replace published ones
ROW_GROUP_BYTES = 64 * 1024**2
# Chunks are added to the tables together up to this: they have 173 columns, so a few rows take as
# long as many.
_BUFFERED_BYTES = 4 * 1024**2
# The content of a table is at most this many times the size of its buffers: a boolean counts as a
# byte and is stored as a bit.
_MAX_CONTENT_RATIO = 8


def table_name(table: str, number: int) -> str:
    """Name of a published file within the run's folder."""
    return f"{table}/{shard_label(number)}.parquet"


class ShardWriter:
    """Writes the files of one shard, to which its chunks are added in order.

    n_rows: by table. errors: number of error rows by stage and code. totals: of all records. They
    are complete after `finish`. sizes: bytes of the file of each table, when all are complete.
    """

    def __init__(self, writers: dict[str, TableWriter]) -> None:
        self._writers = writers
        self._chunks: list[pa.Table] = []
        self._buffer_bytes = 0
        self.errors: Counter[tuple[str, str]] = Counter()
        self.totals = Totals()
        self.sizes: dict[str, int] = {}

    @property
    def n_rows(self) -> dict[str, int]:
        """Number of rows written to each table so far."""
        return {name: writer.n_rows for name, writer in self._writers.items()}

    def add(self, records: pa.Table) -> None:
        """Add the records of a chunk, in the schema CHUNK_FILE."""
        self._chunks.append(records)
        self._buffer_bytes += _buffer_bytes(records)
        if self._buffer_bytes >= _BUFFERED_BYTES:
            self.finish()

    def finish(self) -> None:
        """Write the chunks that were added and not written yet."""
        content_bytes = _MAX_CONTENT_RATIO * self._buffer_bytes
        fits = all(writer.has_room(content_bytes) for writer in self._writers.values())
        # A row group has to end after the chunk that fills it: chunks are joined only if none can.
        chunks = [pa.concat_tables(self._chunks)] if fits and self._chunks else self._chunks
        for records in chunks:
            for name, writer in self._writers.items():
                writer.add(rows_of_table(records, name))
            self.errors.update(_count_errors(records))
            self.totals = added([self.totals, totals_of(records)])
        self._chunks, self._buffer_bytes = [], 0


@contextmanager
def writing_shard(
    folder: Folder,
    number: int,
    tables: Sequence[str],
    file_name: Callable[[str, int], str] = table_name,
) -> Iterator[ShardWriter]:
    """Write a shard's files in `tables`; they appear, samples/ first, when the block ends.

    All files are complete before the first one appears. Each replaces only the version that was
    there when the block began. If the block raises, none appears. file_name: of a table and number.

    Raises:
        FileExistsError: somebody else changed one of them meanwhile.
    """
    with ExitStack() as files:
        # Opened in reverse order: an ExitStack closes last what was opened first.
        names = {name: file_name(name, number) for name in reversed(tables)}
        paths = {
            name: files.enter_context(folder.writing(file, if_version=folder.version(file)))
            for name, file in names.items()
        }
        with ExitStack() as open_files:
            writers = {
                name: open_files.enter_context(TableWriter(paths[name], TABLES[name]))
                for name in tables
            }
            shard = ShardWriter(writers)
            yield shard
            shard.finish()
        shard.sizes = {name: path.stat().st_size for name, path in paths.items()}


def rows_of_table(records: pa.Table, table: str) -> pa.Table:
    """The rows of a published table in records of the schema CHUNK_FILE."""
    if table == "samples":
        rows = combined(records.column("sample"))
    else:
        rows = combined(records.column(table)).flatten()
    return pa.Table.from_struct_array(rows).cast(TABLES[table])


def _count_errors(records: pa.Table) -> Counter[tuple[str, str]]:
    """Number of error rows by stage and code."""
    sample = combined(records.column("sample"))
    columns = [sample.field(name).to_pylist() for name in ("status", "error_stage", "error_code")]
    return Counter(
        (stage, code) for status, stage, code in zip(*columns, strict=True) if status == "error"
    )


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Compression, encodings and checksums of a published table, for `pq.ParquetWriter`.

    Float columns have no dictionary: masses hardly repeat, and looking for repeats takes longer
    than writing them.
    """
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    repeating = [name for name, kind in leaves if not pa.types.is_float32(kind)]
    return {"compression": "zstd", "use_dictionary": repeating, "write_page_checksum": True}


def _leaves(name: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Path and type of each Parquet column of a field."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{name}.{field.name}", field.type)
    elif pa.types.is_map(kind):
        yield from _leaves(f"{name}.key_value.key", kind.key_type)
        yield from _leaves(f"{name}.key_value.value", kind.item_type)
    elif pa.types.is_nested(kind):
        yield from _leaves(f"{name}.list.element", kind.value_type)
    else:
        yield name, kind


class TableWriter:
    """Writes a Parquet file whose row groups are large, however small the tables added to it.

    A row group ends after the table that brings its content to 64 MiB.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pq.ParquetWriter(path, schema, **parquet_options(schema))
        self._pending: list[pa.Table] = []  # the tables of the next row group
        self._max_bytes = 0  # of their content, at most
        self._n_measured = 0  # tables whose content was measured
        self._measured_bytes = 0
        self.n_rows = 0

    def has_room(self, n_bytes: int) -> bool:
        """Whether this much content can be added without ending the row group."""
        return self._max_bytes + n_bytes < ROW_GROUP_BYTES

    def add(self, table: pa.Table) -> None:
        self._pending.append(table)
        self.n_rows += len(table)
        # Measuring the content takes 2 ms, so it is done only when the row group may be full.
        self._max_bytes += _MAX_CONTENT_RATIO * _buffer_bytes(table)
        if self._max_bytes < ROW_GROUP_BYTES:
            return
        for unmeasured in self._pending[self._n_measured :]:
            self._measured_bytes += content_bytes(unmeasured)
        self._n_measured = len(self._pending)
        if self._measured_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        # As one array per column, so that the bytes do not depend on how many tables were added.
        table = pa.concat_tables(self._pending).unify_dictionaries().combine_chunks()
        self._file.write_table(table, row_group_size=max(len(table), 1))
        self._pending = []
        self._max_bytes = self._n_measured = self._measured_bytes = 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._pending:
            self._flush()
        self._file.close()


def _buffer_bytes(table: pa.Table) -> int:
    """Bytes of a table's buffers as Arrow would send them; cheap to compute."""
    return sum(map(pa.ipc.get_record_batch_size, table.to_batches()))


def content_bytes(values: pa.Table | pa.ChunkedArray | pa.Array) -> int:
    """Bytes of the values alone, while `nbytes` also counts the rest of a shared buffer."""
    if isinstance(values, pa.Table):
        return sum(map(content_bytes, values.itercolumns()))
    if isinstance(values, pa.ChunkedArray):
        return sum(map(content_bytes, values.chunks))
    kind = values.type
    if pa.types.is_struct(kind):
        return sum(map(content_bytes, values.flatten()))
    if pa.types.is_map(kind):
        first, last = values.offsets[0].as_py(), values.offsets[-1].as_py()
        entries = (items.slice(first, last - first) for items in (values.keys, values.items))
        return 4 * len(values) + sum(map(content_bytes, entries))
    if pa.types.is_nested(kind):
        return 4 * len(values) + content_bytes(values.flatten())
    if pa.types.is_string(kind) or pa.types.is_large_binary(kind):
        return 4 * len(values) + (pc.sum(pc.binary_length(values)).as_py() or 0)
    if pa.types.is_dictionary(kind):
        return 4 * len(values)
    return len(values) * max(kind.bit_width, 8) // 8
