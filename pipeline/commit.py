"""Parts: one file per finished chunk, whose existence is the commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnitrace_core.errors import RunError
from pipeline.io import Storage
from pipeline.plan import Chunk
from pipeline.table_writer import encoding
from stages.chunk import rows_of
from stages.read_samples import row_key
from stages.schema import PART_FILE

PARTS = "_parts"


@dataclass(frozen=True, slots=True)
class Committed:
    """What the driver hears of a chunk whose part is written."""

    chunk_key: str
    shard: str
    n_rows: int
    n_error: int


COMMITTED = pa.schema(
    [
        ("chunk_key", pa.string()),
        ("shard", pa.string()),
        ("n_rows", pa.int64()),
        ("n_error", pa.int64()),
    ]
)
# Does the work of chunks, in any order, and yields each when its part is written.
Execute = Callable[[Sequence[Chunk]], Iterator[Committed]]


def part_name(chunk_key: str) -> str:
    """Name of a chunk's part within the run's folder."""
    return f"{PARTS}/{chunk_key}.parquet"


def commit_chunk(table: pa.Table, folder: Storage) -> pa.Table:
    """Last step of the graph: write a chunk of RECORD rows as one part; returns a `Committed` row.

    Writing it again gives the same part.

    Raises:
        RunError: a row of the chunk is missing, or one is there that is not its own.
    """
    chunk = table.select(["chunk_key", "shard", "first_row", "n_rows"]).to_pylist()[0]
    part = pa.Table.from_struct_array(rows_of(table)).cast(PART_FILE)
    check_part(part, chunk["shard"], chunk["first_row"], chunk["n_rows"])
    with folder.writing(part_name(chunk["chunk_key"])) as path:
        pq.write_table(part, path, **encoding(part.schema))
    n_error = count_status(part)["error"]
    row = {**chunk, "n_error": n_error}
    return pa.Table.from_pylist([{n: row[n] for n in COMMITTED.names}], schema=COMMITTED)


def read_part(folder: Storage, chunk: Chunk) -> pa.Table:
    """A part that was committed.

    Raises:
        RunError: it does not hold exactly the chunk's rows.
    """
    with folder.open(part_name(chunk.key)) as file, pq.ParquetFile(file) as stored:
        part = stored.read(use_threads=False).cast(PART_FILE)
    check_part(part, chunk.shard, chunk.first_row, chunk.n_rows)
    return part


def check_part(part: pa.Table, shard: str, first_row: int, n_rows: int) -> None:
    """Each row of the chunk exactly once, each ok or error. Raises: RunError."""
    sample = part.column("sample").combine_chunks()
    expected = [row_key(shard, first_row + index) for index in range(n_rows)]
    met = sample.field("row_key").to_pylist()
    if met != expected:
        lost, added = Counter(expected) - Counter(met), Counter(met) - Counter(expected)
        raise RunError(
            f"{shard}, rows {first_row} to {first_row + n_rows}: {sum(lost.values())} rows lost "
            f"{list(lost)[:3]}, {sum(added.values())} not planned {list(added)[:3]}"
        )
    if count_status(part).keys() - {"ok", "error"}:
        raise RunError(f"{shard}: rows of unknown status in {dict(count_status(part))}")


def count_status(part: pa.Table) -> Counter[str]:
    """How many of a part's rows are ok and error."""
    return Counter(pc.struct_field(part.column("sample"), "status").to_pylist())
