"""Publish a shard again whose chosen error rows were traced once more; all other rows are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.errors import RunError
from pipeline.planning.plan import Chunk
from pipeline.plurals import counted
from pipeline.retrying.choice import Retry, RetryChoice
from pipeline.retrying.replace_files import replace_files, staged_name
from pipeline.run_folder.chunk_files import check_chunk_rows, chunk_file_name, read_chunk_file
from pipeline.run_folder.manifests import Manifest, manifest_name, read_manifest
from pipeline.run_folder.publish import Confirm, errors_by_code_and_stage
from pipeline.run_folder.stored_shard import opened_table, read_shard, table_batches
from pipeline.run_folder.table_files import ShardWriter, table_name, writing_shard
from pipeline.storage.folder import Folder
from stages.arrow.columns import combined, replace_fields
from stages.arrow.table_schema import CHUNK_FILE, TABLES

_BATCH_ROWS = 512  # of a published shard, read at a time


@dataclass(frozen=True, slots=True)
class ErrorRows:
    """Error rows of a published shard. rows: their numbers, in order. attempts: of each so far."""

    rows: tuple[int, ...]
    attempts: tuple[int, ...]


def find_error_rows(folder: Folder, manifest: Manifest, choice: RetryChoice) -> ErrorRows:
    """The chosen error rows of a published shard, from three columns of its file in samples/.

    Raises:
        RunError: the file is missing or damaged, or its rows are not those that the manifest
            counts.
    """
    name = table_name("samples", manifest.number)
    rows: list[int] = []
    attempts: list[int] = []
    n_rows = 0
    with opened_table(folder, name, manifest) as file:
        columns = ["status", "error_code", "attempts"]
        for batch in table_batches(file, folder.url(name), columns):
            found = zip(*(batch.column(column).to_pylist() for column in columns), strict=True)
            for row, (status, code, n_attempts) in enumerate(found, n_rows):
                if status == "error" and choice.includes(code):
                    rows.append(row)
                    attempts.append(n_attempts or 1)
            n_rows += len(batch)
    n_expected = sum(choice.of(manifest.by_code).values())
    if (n_rows, len(rows)) != (manifest.n_rows, n_expected):
        raise RunError(
            f"{folder.url(name)} has {counted(n_rows, 'row')}, {len(rows)} of them to be done "
            f"again, and its manifest counts {manifest.n_rows} and {n_expected}; delete "
            f"{folder.url(manifest_name(manifest.number))} and run again: the shard will be done "
            "again as a whole"
        )
    return ErrorRows(tuple(rows), tuple(attempts))


def publish_retried_shard(
    folder: Folder,
    number: int,
    retry: Retry,
    errors: ErrorRows,
    chunks: Sequence[Chunk],
    confirm: Confirm,
    epoch: int,
) -> Manifest:
    """Publish a shard again with new records for its chosen error rows; returns its new manifest.

    number: of the shard. errors: the rows of `chunks`, which all have chunk files. epoch: of the
    driver. Memory: as of `publish_shard`, and a few chunks of the published files.

    Raises:
        RunError: the published files or the chunk files do not hold the rows that they should.
        FileExistsError: others keep writing the shard's files, though the run is ours.
    """
    old = read_manifest(folder, number)
    if old is None or not old.key:
        raise RunError(f"{folder.url(manifest_name(number))} was deleted or replaced; run again")
    new_rows = _NewRows(folder, chunks, errors)
    tables = [table for table in TABLES if table_name(table, number) in old.files]
    with writing_shard(folder, number, tables, partial(staged_name, epoch)) as files:
        _merge(folder, old, tables, new_rows, files)
        confirm()
    by_code, by_stage = errors_by_code_and_stage(files.errors)
    n_error = sum(by_code.values())
    manifest = replace(
        old,
        n_ok=old.n_rows - n_error,
        n_error=n_error,
        n_spans=files.n_rows["spans"],
        by_code=by_code,
        by_stage=by_stage,
        files={table_name(table, number): count for table, count in files.n_rows.items()},
        epoch=epoch,
        retry=retry.number,
        n_retried=len(errors.rows),
        n_mended=new_rows.n_ok,
        totals=files.totals,
        sizes={table_name(table, number): size for table, size in files.sizes.items()},
    )
    replace_files(folder, old, manifest, confirm)
    confirm()
    folder.delete_many([chunk_file_name(chunk.key) for chunk in chunks])
    return manifest


def _merge(
    folder: Folder,
    old: Manifest,
    tables: Sequence[str],
    new_rows: _NewRows,
    files: ShardWriter,
) -> None:
    """Write the published rows in their order, with the new records in place of the old errors.

    In the chunks of the run, so that row groups end where those of any published shard do.
    """
    columns = {table: TABLES[table].names for table in tables}
    # A manifest of an old run does not have the size of its chunks: any that gives as many will do.
    chunk_samples = old.chunk_samples or -(-old.n_rows // max(len(old.chunk_keys), 1))
    first_row = 0
    for batch in read_shard(folder, old, chunk_samples, columns, _BATCH_ROWS):
        records = batch.records()
        for start in range(0, len(records), chunk_samples):
            chunk = new_rows.put_into(records.slice(start, chunk_samples), first_row)
            check_chunk_rows(chunk, old.shard, range(first_row, first_row + len(chunk)))
            files.add(chunk)
            first_row += len(chunk)


class _NewRows:
    """The new records of a shard's retried rows, read in the order of the rows.

    n_ok: ok rows among those that were put into the shard so far.
    """

    def __init__(self, folder: Folder, chunks: Sequence[Chunk], errors: ErrorRows) -> None:
        self._runs = self._read(folder, chunks, errors)
        self._next = next(self._runs, None)
        self.n_ok = 0

    def put_into(self, records: pa.Table, first_row: int) -> pa.Table:
        """Records of consecutive rows from `first_row` on, with the new ones in their places."""
        end = first_row + len(records)
        pieces, at = [], first_row
        while self._next is not None and self._next[0] < end:
            row, new = self._next
            # The records of one chunk file may reach into the next chunk of the shard.
            taken = new.slice(0, end - row)
            pieces += [records.slice(at - first_row, row - at), taken]
            self.n_ok += _count_ok(taken)
            at = row + len(taken)
            rest = new.slice(len(taken))
            self._next = (at, rest) if len(rest) else next(self._runs, None)
        return pa.concat_tables([*pieces, records.slice(at - first_row)])

    @staticmethod
    def _read(
        folder: Folder, chunks: Sequence[Chunk], errors: ErrorRows
    ) -> Iterator[tuple[int, pa.Table]]:
        """Runs of consecutive rows: the number of the first, and the records."""
        done = 0
        for chunk in chunks:
            records = read_chunk_file(folder, chunk)
            attempts = errors.attempts[done : done + len(records)]
            records = _with_attempts(records, attempts)
            done += len(records)
            rows, start = list(chunk.row_numbers), 0
            for index in range(1, len(rows) + 1):
                if index == len(rows) or rows[index] != rows[index - 1] + 1:
                    yield rows[start], records.slice(start, index - start)
                    start = index


def _with_attempts(records: pa.Table, earlier: Sequence[int]) -> pa.Table:
    """The records with the attempts of earlier tries added to their own."""
    sample = combined(records.column("sample"))
    attempts = pc.add(sample.field("attempts").fill_null(1), pa.array(earlier, pa.int32()))
    index = CHUNK_FILE.get_field_index("sample")
    sample = replace_fields(sample, {"attempts": attempts})
    return records.set_column(index, CHUNK_FILE.field("sample"), sample)


def _count_ok(records: pa.Table) -> int:
    status = combined(records.column("sample")).field("status")
    return sum(value == "ok" for value in status.to_pylist())
