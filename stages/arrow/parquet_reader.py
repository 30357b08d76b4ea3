"""Read Parquet files by row group, and tell damaged files from all other failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from omnitrace_core.errors import DamagedFile

_MAX_REASON_CHARS = 200


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
    """A row group that cannot be decoded, and what the reader says of it."""

    group: RowGroup
    reason: str

    def __str__(self) -> str:
        return f"{self.group}: {self.reason}"


class ParquetReader:
    """A Parquet file that is read row group by row group, with its pages' checksums verified.

    A row group counts as damaged if the decoder refuses it. What the file object itself raises
    (a store that is away, a disk that fails) is raised unchanged: it says nothing of the content.

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

        Raises: DamagedFile: it cannot be decoded.
        """
        with self._decoding():
            # Without threads: Arrow's I/O threads can outlive main and abort the process at exit.
            table = self._file.read_row_group(
                group.number, columns=columns and list(columns), use_threads=False
            )
        _check_number(len(table), group.n_rows)
        return table

    def batches(
        self, group: RowGroup, columns: Sequence[str] | None, batch_size: int
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a row group, in batches. columns: None for all.

        Raises: DamagedFile: it cannot be decoded.

        Rows are known to be those that were written only when the last batch has come: a damaged
        page may shift the rows of its column against those of others.
        """
        n_rows = 0
        with self._decoding():
            # Without threads: Arrow's I/O threads can outlive main and abort the process at exit.
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
                break
            n_rows += len(batch)
            yield batch
        _check_number(n_rows, group.n_rows)

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
            raise DamagedFile(reason[:_MAX_REASON_CHARS]) from error


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
