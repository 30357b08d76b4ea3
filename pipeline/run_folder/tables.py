"""Writing a shard's files in all tables, and how their row groups are cut.

The bytes of a file depend on the records and the chunks they come in, and on nothing else: not on
how the records lay in memory. So a run that is curated again with the same settings is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.planning.plan import shard_label
from pipeline.storage.folder import Folder
from stages.arrow.schema import TABLES

_ROW_GROUP_BYTES = 64 * 1024**2
# Parts wait for each other up to this, as a few rows take as long as many: a part has 167 columns.
_TOGETHER_BYTES = 4 * 1024**2
# Bits that count as bytes are the worst that the content can be beyond what its buffers hold.
_AT_MOST = 8


def table_name(table: str, number: int) -> str:
    """Name of a published file within the run's folder."""
    return f"{table}/{shard_label(number)}.parquet"


class ShardWriter:
    """The files of one shard, to which its chunks are added in order.

    n_rows: by table. errors: error rows by stage and code. Both hold when it is finished.
    """

    def __init__(self, writers: dict[str, _TableWriter]) -> None:
        self._writers = writers
        self._parts: list[pa.Table] = []
        self._bytes = 0  # at most, in their buffers
        self.errors: Counter[tuple[str, str]] = Counter()

    @property
    def n_rows(self) -> dict[str, int]:
        """Rows so far in each table that is kept."""
        return {name: writer.n_rows for name, writer in self._writers.items()}

    def add(self, part: pa.Table) -> None:
        """Add a chunk's records. part: in the schema of CHUNK_FILE."""
        self._parts.append(part)
        self._bytes += _buffered(part)
        if self._bytes >= _TOGETHER_BYTES:
            self.finish()

    def finish(self) -> None:
        """Hand over what waits."""
        together = all(writer.has_room(_AT_MOST * self._bytes) for writer in self._writers.values())
        # Where a row group may end in between, it ends behind the part that fills it.
        parts = [pa.concat_tables(self._parts)] if together and self._parts else self._parts
        for part in parts:
            for name, writer in self._writers.items():
                writer.add(rows_of_table(part, name))
            self.errors.update(_count_errors(part))
        self._parts, self._bytes = [], 0


@contextmanager
def writing_shard(folder: Folder, number: int, tables: Sequence[str]) -> Iterator[ShardWriter]:
    """A shard's files in `tables`; they appear, samples/ first, when the block ends well.

    All are written to their end before the first one appears, and replace only what was there when
    the block began.

    Raises:
        FileExistsError: somebody else changed one of them meanwhile.
    """
    with ExitStack() as files:
        # Opened in reverse: what an ExitStack holds appears last-in first-out.
        names = {name: table_name(name, number) for name in reversed(tables)}
        paths = {
            name: files.enter_context(folder.writing(file, over=folder.version(file)))
            for name, file in names.items()
        }
        with ExitStack() as open_files:
            writers = {
                name: open_files.enter_context(_TableWriter(paths[name], TABLES[name]))
                for name in tables
            }
            shard = ShardWriter(writers)
            yield shard
            shard.finish()


def rows_of_table(part: pa.Table, table: str) -> pa.Table:
    """The rows of one table in a part, as they are published."""
    if table == "samples":
        rows = part.column("sample").combine_chunks()
    else:
        rows = part.column(table).combine_chunks().flatten()
    return pa.Table.from_struct_array(rows).cast(TABLES[table])


def _count_errors(part: pa.Table) -> Counter[tuple[str, str]]:
    """Error rows of a part by stage and code."""
    sample = part.column("sample").combine_chunks()
    columns = [sample.field(name).to_pylist() for name in ("status", "error_stage", "error_code")]
    return Counter(
        (stage, code) for status, stage, code in zip(*columns, strict=True) if status == "error"
    )


def encoding(schema: pa.Schema) -> dict[str, Any]:
    """How Parquet files of records are encoded, as options of pyarrow's writer.

    Masses hardly repeat: to look for a dictionary of them takes longer than to write them.
    """
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    repeating = [name for name, kind in leaves if not pa.types.is_float32(kind)]
    return {"compression": "zstd", "use_dictionary": repeating}


def _leaves(name: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The columns that Parquet makes of a field."""
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


class _TableWriter:
    """A Parquet file whose row groups are large enough to be read fast, whatever a part's size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pq.ParquetWriter(path, schema, **encoding(schema))
        self._waiting: list[pa.Table] = []
        self._at_most = self._measured = self._bytes = 0  # bytes, tables, and bytes of those
        self.n_rows = 0

    def has_room(self, n_bytes: int) -> bool:
        """Whether so much can be added without filling the row group."""
        return self._at_most + n_bytes < _ROW_GROUP_BYTES

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self.n_rows += len(table)
        # To measure exactly takes 2 ms, so it is left until it can matter.
        self._at_most += _AT_MOST * _buffered(table)
        if self._at_most < _ROW_GROUP_BYTES:
            return
        for unmeasured in self._waiting[self._measured :]:
            self._bytes += sum(_content_bytes(column) for column in unmeasured.itercolumns())
        self._measured = len(self._waiting)
        if self._bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        # In one piece, so that no byte depends on how many came together.
        table = pa.concat_tables(self._waiting).unify_dictionaries().combine_chunks()
        self._file.write_table(table, row_group_size=max(len(table), 1))
        self._waiting, self._at_most, self._measured, self._bytes = [], 0, 0, 0

    def __enter__(self) -> _TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._waiting:
            self._flush()
        self._file.close()


def _buffered(table: pa.Table) -> int:
    """Bytes of a table as it would be sent, a cheap measure."""
    return sum(map(pa.ipc.get_record_batch_size, table.to_batches()))


def _content_bytes(values: pa.Array | pa.ChunkedArray) -> int:
    """Bytes of the values themselves. `nbytes` would count what they happen to lie in as well."""
    if isinstance(values, pa.ChunkedArray):
        return sum(_content_bytes(chunk) for chunk in values.chunks)
    kind = values.type
    if pa.types.is_struct(kind):
        return sum(_content_bytes(column) for column in values.flatten())
    if pa.types.is_map(kind):
        first, last = values.offsets[0].as_py(), values.offsets[-1].as_py()
        inside = (items.slice(first, last - first) for items in (values.keys, values.items))
        return 4 * len(values) + sum(map(_content_bytes, inside))
    if pa.types.is_nested(kind):
        return 4 * len(values) + _content_bytes(values.flatten())
    if pa.types.is_string(kind) or pa.types.is_large_binary(kind):
        return 4 * len(values) + (pc.sum(pc.binary_length(values)).as_py() or 0)
    if pa.types.is_dictionary(kind):
        return 4 * len(values)
    return len(values) * max(kind.bit_width, 8) // 8
