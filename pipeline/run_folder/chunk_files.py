"""Chunk files: one file per finished chunk, from its commit until its shard is published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.errors import RunError
from pipeline.planning.plan import Chunk
from pipeline.plurals import counted
from pipeline.storage.folder import Folder
from stages.arrow.chunk import row_key
from stages.arrow.columns import combined
from stages.arrow.table_schema import CHUNK_FILE

CHUNK_FILES = "_parts"
# A chunk file is read once, soon after it was written. So it has to be quick to write and to read,
# and most of it is float masses, which hardly compress: Arrow's file format, uncompressed (028).
_SUFFIX = ".arrow"


def chunk_file_name(chunk_key: str) -> str:
    """Name of a chunk's file within the run's folder."""
    return f"{CHUNK_FILES}/{chunk_key}{_SUFFIX}"


def committed_chunks(folder: Folder) -> set[str]:
    """Keys of the chunks that have a chunk file. S3: one request per 1,000."""
    return {name.removesuffix(_SUFFIX) for name in folder.names(CHUNK_FILES, suffix=_SUFFIX)}


def read_chunk_file(folder: Folder, chunk: Chunk) -> pa.Table:
    """The records of a committed chunk, in the schema CHUNK_FILE.

    Raises:
        FileNotFoundError: the chunk has no file.
        RunError: the file is damaged, or does not hold exactly the chunk's rows.
    """
    # As a whole: one request, and no step back into Python for each of its many columns.
    content = folder.read(chunk_file_name(chunk.key))
    with _reporting_damage(folder, chunk):
        records = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        records.validate()
    records = records.cast(CHUNK_FILE)
    check_chunk_rows(records, chunk.shard, chunk.row_numbers)
    return records


def count_chunk_file(folder: Folder, chunk: Chunk) -> tuple[int, int]:
    """Number of rows of a committed chunk, and how many of them are errors.

    Raises:
        FileNotFoundError: the chunk has no file.
        RunError: the file is damaged.
    """
    # Without the masses, which are most of the file.
    only_samples = pa.ipc.IpcReadOptions(included_fields=[CHUNK_FILE.get_field_index("sample")])
    with folder.open(chunk_file_name(chunk.key)) as file, _reporting_damage(folder, chunk):
        counts = count_by_status(pa.ipc.open_file(file, options=only_samples).read_all())
    return counts.total(), counts["error"]


@contextmanager
def _reporting_damage(folder: Folder, chunk: Chunk) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise RunError(
            f"{folder.url(chunk_file_name(chunk.key))} is not a chunk file ({error}); delete it "
            f"and run again: its chunk of {chunk.shard} will be done again"
        ) from error


def check_chunk_rows(records: pa.Table, shard: str, rows: Sequence[int]) -> None:
    """Check that each row of a chunk is there exactly once, and is ok or error.

    records: in the schema CHUNK_FILE. rows: the numbers of the chunk's rows, in order.

    Raises:
        RunError: a row is missing, is there twice, belongs to another chunk, or has no status.
    """
    sample = combined(records.column("sample"))
    expected = [row_key(shard, row) for row in rows]
    found = sample.field("row_key").to_pylist()
    if found != expected:
        lost, added = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
        raise RunError(
            f"{shard}, rows {rows[0]} to {rows[-1] + 1}: "
            f"{counted(sum(lost.values()), 'row')} lost "
            f"{list(lost)[:3]}, {sum(added.values())} not planned {list(added)[:3]}"
        )
    if count_by_status(records).keys() - {"ok", "error"}:
        raise RunError(f"{shard}: rows of unknown status in {dict(count_by_status(records))}")


def count_by_status(records: pa.Table) -> Counter[str]:
    """Number of rows of each status. records: in the schema CHUNK_FILE."""
    return Counter(pc.struct_field(records.column("sample"), "status").to_pylist())
