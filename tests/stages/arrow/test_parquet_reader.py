"""What counts as damage of a Parquet file, and what is somebody else's fault."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.errors import DamagedFile, StoreUnavailable
from stages.arrow.parquet_reader import ParquetReader, RowGroup
from tests.stages.damaged_files import column_chunks, overwrite


class _Failing(io.BytesIO):
    """A file whose reading fails from a certain read on."""

    def __init__(self, content: bytes, error: Exception, n_reads: int) -> None:
        super().__init__(content)
        self._error, self._left = error, n_reads

    def read(self, n_bytes: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return super().read(n_bytes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    table = pa.table({"number": range(30), "text": [f"text {i}" for i in range(30)]})
    path = tmp_path / "a.parquet"
    pq.write_table(
        table,
        path,
        row_group_size=10,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    return path


def _open(path: Path) -> ParquetReader:
    return ParquetReader(io.BytesIO(path.read_bytes()))


def test_rows_are_counted_from_the_footer(file: Path) -> None:
    with _open(file) as reader:
        assert reader.n_rows == 30
        assert reader.groups == (RowGroup(0, 0, 10), RowGroup(1, 10, 10), RowGroup(2, 20, 10))
        assert str(reader.groups[1]) == "row group 1 (rows 10 to 19)"
        assert reader.read(reader.groups[1])["number"].to_pylist() == [*range(10, 20)]
        batches = reader.batches(reader.groups[2], ["number"], 4)
        assert [len(batch) for batch in batches] == [4, 4, 2]


def test_file_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.nulls(0, pa.int8())}), tmp_path / "a.parquet")
    with _open(tmp_path / "a.parquet") as reader:
        assert (reader.n_rows, reader.groups) == (0, ())
        assert reader.schema.names == ["a"]


def test_damage_costs_its_row_group(file: Path) -> None:
    (chunk,) = column_chunks(file, "text", 1)
    overwrite(file, chunk.start, bytes(chunk.n_bytes))
    with _open(file) as reader:
        for group in reader.groups:
            if group.number == 1:
                with pytest.raises(DamagedFile):
                    reader.read(group)
                with pytest.raises(DamagedFile):
                    list(reader.batches(group, ["text"], 3))
                assert reader.read(group, ["number"])["number"].to_pylist() == [*range(10, 20)]
            else:
                assert len(reader.read(group)) == 10


def test_one_bit_of_a_text_is_found_by_the_checksums(file: Path) -> None:
    place = file.read_bytes().index(b"text 25")
    overwrite(file, place, b"tent 25")
    with _open(file) as reader, pytest.raises(DamagedFile, match="CRC checksum"):
        reader.read(reader.groups[2])
    # What the checksums are for: by itself the decoder does not notice.
    assert "tent 25" in pq.read_table(file, use_threads=False)["text"].to_pylist()


@pytest.mark.parametrize("n_reads", [0, 1, 3])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError("the connection was lost"),
        StoreUnavailable("no answer"),
        ValueError("of a client library"),
    ],
    ids=lambda error: f"{type(error).__name__}-{getattr(error, 'errno', None)}",
)
def test_what_the_file_raises_is_raised_unchanged(
    file: Path, error: Exception, n_reads: int
) -> None:
    failing = cast(IO[bytes], _Failing(file.read_bytes(), error, n_reads))
    with pytest.raises(type(error)) as raised:  # noqa: PT012  (the footer is read, then the rows)
        reader = ParquetReader(failing)
        for group in reader.groups:
            reader.read(group)
    assert raised.value is error


def test_broken_footer_is_damage(file: Path) -> None:
    """Whatever byte of it changes: the rows are refused, or counted as they were."""
    content = file.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    refused = 0
    for place in range(len(content) - 8 - length, len(content) - 8):
        changed = bytearray(content)
        changed[place] ^= 4
        try:
            with ParquetReader(io.BytesIO(changed)) as reader:
                assert reader.n_rows == 30
                for group in reader.groups:
                    reader.read(group)
        except DamagedFile:
            refused += 1
    assert refused > length // 4
