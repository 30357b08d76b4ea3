"""The commit: writing a chunk's file makes the chunk final."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.planning.plan import Chunk
from pipeline.run_folder.chunk_files import check_chunk_rows, chunk_file_name, count_by_status
from pipeline.run_folder.lease_file import Claim, check_claim
from pipeline.run_folder.output_disk import output_errors
from pipeline.storage.folder import ABSENT, Folder
from stages.arrow.chunk import sample_structs
from stages.arrow.columns import combined
from stages.arrow.table_schema import CHUNK_FILE
from stages.guards.node_guard import naming_node_faults

EPOCH_KEY = b"omnitrace.epoch"  # in a chunk file's metadata: epoch of the driver it was made for

COMMITTED_CHUNK = pa.schema(
    [
        ("chunk_key", pa.string()),
        ("shard", pa.string()),
        ("n_rows", pa.int64()),
        ("n_error", pa.int64()),
        ("n_tokens", pa.int64()),
        ("trace_s", pa.float64()),
    ]
)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CommittedChunk:
    """A finished chunk, as the graph reports it to the driver; COMMITTED_CHUNK has the same fields.

    n_tokens: generated tokens of its ok rows. trace_s: seconds of generation and replay.
    """

    chunk_key: str
    shard: str
    n_rows: int
    n_error: int
    n_tokens: int = 0
    trace_s: float = 0.0


# Does the work of chunks, in any order, and yields each as soon as it is committed.
ExecuteChunks = Callable[[Sequence[Chunk]], Generator[CommittedChunk, None, None]]


@naming_node_faults("commit")
def commit_chunk(
    table: pa.Table,
    folder: Folder,
    claim: Claim | None = None,
    on_commit: Callable[[pa.Table], None] | None = None,
) -> pa.Table:
    """Write a chunk's records as its chunk file; returns one row in the schema COMMITTED_CHUNK.

    A chunk file is never replaced. If another worker has committed the chunk first (a retry, or a
    worker of an earlier driver), its file stays, so that everybody who publishes the chunk
    publishes the same bytes.

    table: one row, the chunk with its RECORD rows. claim: of the driver that the chunk is done for;
    None checks nothing. on_commit: called with `table` after the commit, for metrics.

    Raises:
        RunError: a row of the chunk is missing, or a row of another chunk is there.
        LeaseLost: the run has another driver by now.
        NodeFault: this machine has no space for the file to upload, or no file handles.
    """
    names = ["chunk_key", "shard", "first_row", "n_rows", "rows"]
    chunk = table.select(names).to_pylist()[0]
    rows = chunk["rows"] or range(chunk["first_row"], chunk["first_row"] + chunk["n_rows"])
    records = pa.Table.from_struct_array(sample_structs(table)).cast(CHUNK_FILE)
    check_chunk_rows(records, chunk["shard"], rows)
    if claim is not None:
        check_claim(folder, claim)
        metadata = {**(records.schema.metadata or {}), EPOCH_KEY: str(claim.epoch)}
        records = records.replace_schema_metadata(metadata)
    try:
        with (
            output_errors(folder),
            folder.writing(chunk_file_name(chunk["chunk_key"]), if_version=ABSENT) as path,
            pa.ipc.new_file(str(path), records.schema) as file,
        ):
            file.write_table(records)
    except FileExistsError:
        log.info("chunk %s was committed already", chunk["chunk_key"])
    if on_commit is not None:
        on_commit(table)
    return pa.Table.from_pylist([{**_summary(records), **chunk}], schema=COMMITTED_CHUNK)


def _summary(records: pa.Table) -> dict[str, object]:
    sample = combined(records.column("sample"))
    n_tokens = pc.sum(sample.field("n_generated_tokens")).as_py() or 0
    trace_s = pc.sum(pc.struct_field(sample.field("timings"), "trace_s")).as_py() or 0.0
    return {"n_error": count_by_status(records)["error"], "n_tokens": n_tokens, "trace_s": trace_s}
