"""Read Parquet files by row group, and tell damaged files from all other failures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from omnitrace_core.errors import DamagedFile, UnsupportedFile

# Rows that are decoded together wherever samples are read, so that all commands find the same.
READ_ROWS = 64
_SHRINK = 8  # what a batch is divided by that is too large for Arrow
_MAX_REASON_CHARS = 200
# What Parquet's reader says of files that others can read; it has no type of its own for that.
_UNSUPPORTED = re.compile(
    r"not supported|unsupported|not (?:yet )?implemented|no support|decrypt|without codec|"
    r"encrypted|support for codec",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows [first_row, first_row + n_rows) of a file, counted from its footer.

    number: of the row group, from 0.
    """

    number: int
    first_row: int
    n_rows: int

    @property
    def end(self) -> int:
        """The row after its last one."""
        return self.first_row + self.n_rows

    def __str__(self) -> str:
        return f"row group {self.number} (rows {self.first_row} to {self.end - 1})"


@dataclass(frozen=True, slots=True)
class DamagedGroup:
    """A row group that cannot be decoded, and what the reader says of it.

    is_unsupported: it may be intact, but is more than the reader can decode.
    """

    group: RowGroup
    reason: str
    is_unsupported: bool = False

    @classmethod
    def of(cls, group: RowGroup, error: DamagedFile) -> DamagedGroup:
        """A row group with the error that its decoding raised."""
        return cls(group, error.message, isinstance(error, UnsupportedFile))

    def __str__(self) -> str:
        return f"{self.group}: {self.reason}"


class ParquetReader:
    """A Parquet file that is read row group by row group, with its pages' checksums verified.

    A row group counts as damaged if the decoder refuses it. What the file object itself raises
    (a store that is away, a disk that fails) is raised unchanged: it says nothing of the content.
    What is beyond the decoder (a codec, encryption, its 2 GiB per array) is an UnsupportedFile.

    metadata: the footer. schema: of the whole file. groups: all row groups with rows, in order.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Read the footer. Raises: DamagedFile: it cannot be read."""
        self._source = _WatchedFile(file)
        with self._decoding():
            try:
                self._file = pq.ParquetFile(self._source, page_checksum_verification=True)
                self.metadata: pq.FileMetaData = self._file.metadata
                self.schema: pa.Schema = self._file.schema_arrow
            except UnicodeDecodeError as error:
                raise DamagedFile(f"its schema is not UTF-8: {error}") from error
        self.groups = tuple(self._row_groups())

    @property
    def n_rows(self) -> int:
        """Number of rows, counted from the footer."""
        return self.groups[-1].end if self.groups else 0

    def read(self, group: RowGroup, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a row group. columns: all by default.

        One at a time, because Arrow checks less when it reads several together.

        Raises:
            UnsupportedFile: it is more than the decoder can do.
            DamagedFile: it cannot be decoded.
        """
        try:
            with self._decoding():
                # Without threads: Arrow's I/O threads can outlive main and abort at exit.
                table = self._file.read_row_group(
                    group.number, columns=columns and list(columns), use_threads=False
                )
        except UnsupportedFile:
            return pa.Table.from_batches(list(self.batches(group, columns)))
        _check_number(len(table), group.n_rows)
        return table

    def batches(
        self, group: RowGroup, columns: Sequence[str] | None, batch_size: int = READ_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a row group, in batches of at most `batch_size`. columns: None for all.

        Arrow decodes at most 2 GiB of a nested column together. Beyond that, the row group is read
        again from the next row on, in smaller batches, down to single rows.

        Raises:
            UnsupportedFile: it is more than the decoder can do, even row by row.
            DamagedFile: it cannot be decoded.

        Rows are known to be those that were written only when the last batch has come: a damaged
        page may shift the rows of its column against those of others.
        """
        n_rows = 0
        batches = self._batches_from(n_rows, group, columns, batch_size)
        while True:
            try:
                batch = next(batches, None)
            except UnsupportedFile:
                if batch_size == 1:
                    raise
                batch_size = max(1, batch_size // _SHRINK)
                batches = self._batches_from(n_rows, group, columns, batch_size)
                continue
            if batch is None:
                break
            n_rows += len(batch)
            yield batch
        _check_number(n_rows, group.n_rows)

    def _batches_from(
        self, n_before: int, group: RowGroup, columns: Sequence[str] | None, batch_size: int
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a row group without the first `n_before`, which are decoded again."""
        with self._decoding():
            # Without threads, as above.
            batches = self._file.iter_batches(
                batch_size,
                row_groups=[group.number],
                columns=columns and list(columns),
                use_threads=False,
            )
        while True:
            with self._decoding():
                batch = next(batches, None)
            if batch is None:
                return
            left_out = min(n_before, len(batch))
            n_before -= left_out
            if left_out < len(batch):
                yield batch.slice(left_out) if left_out else batch

    def __enter__(self) -> ParquetReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _row_groups(self) -> Iterator[RowGroup]:
        end = 0
        # The columns of a row group are not looked at here: of some damaged footers, pyarrow's
        # ColumnChunkMetaData aborts the process.
        for number in range(self.metadata.num_row_groups):
            n_rows = self.metadata.row_group(number).num_rows
            if n_rows < 0:
                raise DamagedFile(f"its footer gives row group {number} {n_rows} rows")
            if n_rows:
                yield RowGroup(number, end, n_rows)
            end += n_rows
        if end != self.metadata.num_rows:
            raise DamagedFile(
                f"its footer counts {self.metadata.num_rows} rows, and {end} in its row groups"
            )

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if self._source.failure is not None:
                raise self._source.failure from None
            of_this_machine = isinstance(error, OSError) and error.errno is not None
            if of_this_machine or isinstance(error, MemoryError | pa.ArrowCancelled):
                raise
            # Some messages end with a full stop and a newline.
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            kind = UnsupportedFile if _is_unsupported(error) else DamagedFile
            raise kind(reason[:_MAX_REASON_CHARS]) from error


def _is_unsupported(error: Exception) -> bool:
    """Whether a file that others can read may raise this."""
    if isinstance(error, pa.ArrowNotImplementedError | pa.ArrowCapacityError):
        return True
    return isinstance(error, OSError) and _UNSUPPORTED.search(str(error)) is not None


def _check_number(found: int, expected: int) -> None:
    if found != expected:
        raise DamagedFile(f"it holds {found} rows, and the footer says {expected}")


class _WatchedFile:
    """What pyarrow needs of a file; `failure` is what its reading raised."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: BaseException | None = None

    @property
    def closed(self) -> bool:
        """As of the file."""
        return self._file.closed

    def read(self, n_bytes: int = -1) -> bytes:
        """As of the file."""
        try:
            return self._file.read(n_bytes)
        except BaseException as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of the file."""
        return self._file.tell()

    def close(self) -> None:
        """Do nothing: whoever opened the file closes it."""
