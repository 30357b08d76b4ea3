"""What counts as damage of a Parquet file, and what is somebody else's fault."""

from __future__ import annotations

import base64
import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from omnitrace_core.errors import DamagedFile, StoreUnavailable, UnsupportedFile
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


def _nested(path: Path, n_rows: int, n_bytes: int) -> Path:
    """A small file whose messages hold `n_bytes` of inline media per row, once as stored."""
    blob = pa.array([bytes(n_bytes)], pa.binary())
    data = pa.DictionaryArray.from_arrays(pa.array([0] * n_rows, pa.int32()), blob)
    parts = pa.StructArray.from_arrays([pa.array(["image"] * n_rows), data], ["type", "data"])
    ends = pa.array(range(n_rows + 1), pa.int32())
    content = pa.ListArray.from_arrays(ends, parts)
    message = pa.StructArray.from_arrays(
        [pa.array(["user"] * n_rows), content], ["role", "content"]
    )
    table = pa.table(
        {
            "sample_id": [f"s{i}" for i in range(n_rows)],
            "messages": pa.ListArray.from_arrays(ends, message),
        }
    )
    # Without Arrow's schema, Parquet's binary columns have 32-bit offsets.
    pq.write_table(
        table,
        path,
        compression="zstd",
        store_schema=False,
        dictionary_pagesize_limit=2**30,
    )
    return path


class _LimitedFile:
    """As pyarrow's file, but it decodes at most `most` rows together."""

    def __init__(self, file: pq.ParquetFile, most: int) -> None:
        self._file, self._most = file, most

    def close(self) -> None:
        self._file.close()

    def read_row_group(self, number: int, **_: object) -> pa.Table:
        raise pa.ArrowNotImplementedError("Nested data conversions not implemented")

    def iter_batches(self, batch_size: int, **options: Any) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(self._file.iter_batches(batch_size, **options)):
            # Not at the first batch: those before it are not to come twice.
            if batch_size > self._most and number == 1:
                raise pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes")
            yield batch


@pytest.mark.parametrize("most", [0, 1, 3, 8, 64])
@pytest.mark.parametrize("batch_size", [5, 20, 64])
def test_rows_beyond_a_limit_are_read_in_smaller_batches(
    batch_size: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"a": range(200)}), tmp_path / "a.parquet", row_group_size=100)
    with _open(tmp_path / "a.parquet") as reader:
        monkeypatch.setattr(reader, "_file", _LimitedFile(reader._file, most))
        group = reader.groups[1]
        if most == 0:
            with pytest.raises(UnsupportedFile, match="more than 2147483646 bytes"):
                list(reader.batches(group, None, batch_size))
            return
        found = [n for b in reader.batches(group, ["a"], batch_size) for n in b["a"].to_pylist()]
        assert found == [*range(100, 200)]
        assert reader.read(group)["a"].to_pylist() == found


@pytest.mark.nightly
def test_media_of_more_than_2_gib_in_a_row_group_are_read(tmp_path: Path) -> None:
    path = _nested(tmp_path / "a.parquet", 36, 60 * 2**20)
    with pq.ParquetFile(path) as file, pytest.raises(pa.ArrowNotImplementedError):
        for _ in file.iter_batches(64, row_groups=[0], columns=["messages"], use_threads=False):
            pass
    with _open(path) as reader:
        assert [len(b) for b in reader.batches(reader.groups[0], None)] == [8, 8, 8, 8, 4]


def test_unknown_codec_is_no_damage(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "a.parquet", compression="snappy")
    content = (tmp_path / "a.parquet").read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    said = []
    for place in range(len(content) - 8 - length, len(content) - 8):
        changed = bytearray(content)
        changed[place] = 6  # LZO, where the byte is the codec's
        try:
            with ParquetReader(io.BytesIO(changed)) as reader:
                reader.read(reader.groups[0])
        except UnsupportedFile as error:
            said.append(error.message)
        except DamagedFile:
            pass
    assert len(said) == 1
    assert "LZO" in said[0]


@pytest.mark.parametrize("plaintext_footer", [False, True])
def test_encrypted_file_is_no_damage(plaintext_footer: bool, tmp_path: Path) -> None:
    table = pa.table({"a": ["x"], "b": ["y"]})
    properties = pe.CryptoFactory(lambda _: _Keys()).file_encryption_properties(
        pe.KmsConnectionConfig(),
        pe.EncryptionConfiguration(
            footer_key="f", column_keys={"k": ["b"]}, plaintext_footer=plaintext_footer
        ),
    )
    with pq.ParquetWriter(
        tmp_path / "a.parquet", table.schema, encryption_properties=properties
    ) as writer:
        writer.write_table(table)
    said = "decrypt" if plaintext_footer else "encrypted"
    with pytest.raises(UnsupportedFile, match=said):
        _read_all(tmp_path / "a.parquet")


def _read_all(path: Path) -> None:
    with _open(path) as reader:
        for group in reader.groups:
            reader.read(group)


class _Keys(pe.KmsClient):
    """Keys that are not kept anywhere."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)
