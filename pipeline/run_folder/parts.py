"""Parts: one file per finished chunk, whose existence is the commit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.errors import RunError
from pipeline.planning.plan import Chunk
from pipeline.run_folder.lease import Claim, check_claim
from pipeline.storage.folder import ABSENT, Storage
from stages.arrow.chunk import rows_of
from stages.arrow.schema import PART_FILE
from stages.read_samples import row_key

PARTS = "_parts"
EPOCH = b"omnitrace.epoch"  # in a part's metadata: the driver it was made for
# A part lives until its shard is published: what counts is that it is quick to write and to read,
# and nearly all of it is masses, which hardly compress. So Arrow's own format, as it is (028).
_SUFFIX = ".arrow"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Committed:
    """What the driver hears of a chunk whose part is written."""

    chunk_key: str
    shard: str
    n_rows: int
    n_error: int
    n_tokens: int = 0
    trace_s: float = 0.0


COMMITTED = pa.schema(
    [
        ("chunk_key", pa.string()),
        ("shard", pa.string()),
        ("n_rows", pa.int64()),
        ("n_error", pa.int64()),
        ("n_tokens", pa.int64()),
        ("trace_s", pa.float64()),
    ]
)
# Does the work of chunks, in any order, and yields each when its part is written.
Execute = Callable[[Sequence[Chunk]], Generator[Committed, None, None]]


def part_name(chunk_key: str) -> str:
    """Name of a chunk's part within the run's folder."""
    return f"{PARTS}/{chunk_key}{_SUFFIX}"


def committed_chunks(folder: Storage) -> set[str]:
    """Keys of the chunks that have a part. S3: one request per 1,000."""
    return {name.removesuffix(_SUFFIX) for name in folder.names(PARTS, suffix=_SUFFIX)}


def commit_chunk(table: pa.Table, folder: Storage, claim: Claim | None = None) -> pa.Table:
    """Last step of the graph: write a chunk of RECORD rows as one part; returns a `Committed` row.

    A part is never replaced: whoever comes second, after a retry or for an earlier driver, leaves
    the first one's, so that all who publish a chunk publish the same bytes.

    claim: of the driver that the chunk is done for; None checks nothing.

    Raises:
        RunError: a row of the chunk is missing, or one is there that is not its own.
        LeaseLost: the run has another driver by now.
    """
    chunk = table.select(["chunk_key", "shard", "first_row", "n_rows"]).to_pylist()[0]
    part = pa.Table.from_struct_array(rows_of(table)).cast(PART_FILE)
    check_part(part, chunk["shard"], chunk["first_row"], chunk["n_rows"])
    if claim is not None:
        check_claim(folder, claim)
        told = {**(part.schema.metadata or {}), EPOCH: str(claim.epoch)}
        part = part.replace_schema_metadata(told)
    try:
        with (
            folder.writing(part_name(chunk["chunk_key"]), over=ABSENT) as path,
            pa.ipc.new_file(str(path), part.schema) as file,
        ):
            file.write_table(part)
    except FileExistsError:
        log.info("chunk %s was committed already", chunk["chunk_key"])
    return pa.Table.from_pylist([{**_counts(part), **chunk}], schema=COMMITTED)


def _counts(part: pa.Table) -> dict[str, object]:
    sample = part.column("sample").combine_chunks()
    n_tokens = pc.sum(sample.field("n_generated_tokens")).as_py() or 0
    trace_s = pc.sum(pc.struct_field(sample.field("timings"), "trace_s")).as_py() or 0.0
    return {"n_error": count_status(part)["error"], "n_tokens": n_tokens, "trace_s": trace_s}


def read_part(folder: Storage, chunk: Chunk) -> pa.Table:
    """A part that was committed.

    Raises:
        RunError: it does not hold exactly the chunk's rows, or is damaged.
    """
    # As a whole: one request, and no step back into Python for each of its many columns.
    content = folder.read(part_name(chunk.key))
    with _damaged(folder, chunk):
        part = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        part.validate()
    part = part.cast(PART_FILE)
    check_part(part, chunk.shard, chunk.first_row, chunk.n_rows)
    return part


def count_part(folder: Storage, chunk: Chunk) -> tuple[int, int]:
    """Rows of a part that was committed, and how many of them are errors. Raises: RunError."""
    # Without the masses, which are most of it.
    wanted = pa.ipc.IpcReadOptions(included_fields=[PART_FILE.get_field_index("sample")])
    with folder.open(part_name(chunk.key)) as file, _damaged(folder, chunk):
        counts = count_status(pa.ipc.open_file(file, options=wanted).read_all())
    return counts.total(), counts["error"]


@contextmanager
def _damaged(folder: Storage, chunk: Chunk) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise RunError(
            f"{folder.url(part_name(chunk.key))} is not a part ({error}); delete it and run again: "
            f"its chunk of {chunk.shard} will be done anew"
        ) from error


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
