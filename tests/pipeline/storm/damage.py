"""Damage to the files of a run: they are removed, truncated, or replaced by files of fewer rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.folder import Folder


def damage_files(folder: Folder, names: Sequence[str], how: str) -> None:
    """Remove, truncate or replace files. how: the first word of a storm's event."""
    if how == "remove":
        folder.delete_many(names)
        return
    for name in names:
        # It was deleted or truncated meanwhile, or a driver swept our partial file away.
        with suppress(FileNotFoundError, pa.ArrowException):
            content = b"" if how == "truncate" else _with_half_the_rows(folder.read(name))
            folder.write(name, content)


def _with_half_the_rows(content: bytes) -> bytes:
    table = pq.read_table(pa.BufferReader(content))
    new = pa.BufferOutputStream()
    pq.write_table(table.slice(0, len(table) // 2), new)
    return new.getvalue().to_pybytes()
