"""Parquet files of several row groups, and damage to them that leaves their footer as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.arrow.sample_schema import SAMPLE
from tests.stages.chunks import Row, user

# The leaf columns of SAMPLE by which the tests name what they damage.
LEAVES = {
    "sample_id": "sample_id",
    "messages": "messages.list.element.content.list.element.text",
    "metadata": "metadata.key_value.value",
}


def full_row(sample_id: str | None) -> Row:
    """A sample with a value in every column."""
    word = {"text": "hm", "start_s": 0.0, "end_s": 1.0}
    segment = {"start_s": 0.0, "end_s": 1.0, "text": "hm", "words": [word]}
    source = {"modality": "image", "part_index": 1, "box": [0.0, 0.0, 1.0, 1.0]}
    return {
        "sample_id": sample_id,
        "messages": [
            user(
                {"type": "text", "text": f"What is {sample_id}?"},
                {"type": "image", "data": b"bytes", "options": {"max_pixels": 3136}},
                {"type": "audio", "data": b"bytes", "segments": [segment]},
            )
        ],
        "response": f"It is {sample_id}.",
        "response_token_ids": [1, 2],
        "reference_answer": "it",
        "options": ["it", "that"],
        "labels": [{"statement": "It is.", "sources": [source]}],
        "metadata": [("name", f"of {sample_id}")],
    }


def write_groups(path: Path, rows: Sequence[Row], group_rows: int, **options: Any) -> Path:
    """A shard with row groups of this size; by default without checksums, as others write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=SAMPLE)
    pq.write_table(table, path, row_group_size=group_rows, **options)
    return path


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """Where the pages of a column of a row group are. pages: first byte of each kind of page."""

    start: int
    n_bytes: int
    pages: tuple[int, ...]


def column_chunks(path: Path, leaf: str = "", group: int | None = None) -> Iterator[ColumnChunk]:
    """The column chunks of a file; of one leaf column, of one row group, or of all."""
    metadata = pq.read_metadata(path)
    numbers = range(metadata.num_row_groups) if group is None else [group]
    for row_group in map(metadata.row_group, numbers):
        for column in map(row_group.column, range(row_group.num_columns)):
            if leaf in ("", column.path_in_schema):
                pages = [column.dictionary_page_offset, column.data_page_offset]
                known = tuple(page for page in pages if page)
                yield ColumnChunk(known[0], column.total_compressed_size, known)


def damage(path: Path, column: str, group: int) -> None:
    """Overwrite all pages of a column of a row group with zeros."""
    (chunk,) = column_chunks(path, LEAVES[column], group)
    overwrite(path, chunk.start, bytes(chunk.n_bytes))


def break_footer(path: Path) -> None:
    """Overwrite the beginning of the footer with zeros."""
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    overwrite(path, len(content) - 8 - length, bytes(20))


def overwrite(path: Path, start: int, content: bytes) -> None:
    """Put these bytes at this place of the file."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def damaged_at_random(content: bytes, chunks: Sequence[ColumnChunk], random: Random) -> bytes:
    """The file with one fault somewhere in its pages or their headers; the footer stays."""
    found = bytearray(content)
    chunk = random.choice(chunks)
    end = chunk.start + chunk.n_bytes
    place = random.randrange(chunk.start, end)
    kind = random.choice(("bit", "header", "bytes", "block", "cut"))
    if kind == "bit":
        found[place] ^= 1 << random.randrange(8)
    elif kind == "header":
        place = min(random.choice(chunk.pages) + random.randrange(24), end - 1)
        found[place] = random.randrange(256)
    elif kind == "bytes":
        found[place : place + 8] = random.randbytes(len(found[place : place + 8]))
    elif kind == "block":
        first_chunk, last_chunk = chunks[0], chunks[-1]
        start = max(place // 4096 * 4096, first_chunk.start)
        stop = min(start + 4096, last_chunk.start + last_chunk.n_bytes)
        found[start:stop] = bytes(stop - start)
    else:
        del found[max(place - random.randrange(1, 99), 4) : place]
    return bytes(found)
