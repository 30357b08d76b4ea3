"""Input files of `ingest`: finding them, and reading their records one by one.

JSON is read incrementally (a list of any length, one object, or objects one after another), JSON
Lines by line, Parquet by small batches, so memory holds a few records at a time.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from omnitrace_core.errors import ConfigError, InputSchemaError, StoreUnavailable
from omnitrace_core.samples.forms import ID_KEYS
from omnitrace_core.storage.files import connect

_BATCH_ROWS = 64
_READ_CHARS = 1 << 16
# The C scanner names the place where it stopped; closer than this to the end of what was read, the
# cause may be the missing rest (the longest literal or escape is shorter).
_TAIL_CHARS = 32
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Record:
    """One record as parsed, and where it stood (for messages)."""

    value: object
    where: str


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to read; url is a plain path if it is local."""

    fs: fsspec.AbstractFileSystem
    path: str
    url: str

    @property
    def folder(self) -> str:
        """What relative addresses in the file start at."""
        return self.url.rpartition("/")[0] or "/"

    def records(self) -> Iterator[Record]:
        """The records in order.

        Raises:
            InputSchemaError: the file cannot be read or parsed, or its columns hold no samples.
        """
        suffix = _suffix(self.path)
        try:
            yield from _READERS[suffix](self)
        except StoreUnavailable:
            raise
        except (OSError, pa.ArrowException) as exc:
            raise InputSchemaError(
                f"{self.url}: cannot be read as {suffix} ({exc}); check it and its access rights"
            ) from exc


def find_files(source: str) -> list[InputFile]:
    """The input files that a file, directory, fsspec URL or glob names, in order of their path.

    A directory gives the .json, .jsonl and .parquet files directly in it, hidden ones left out.
    Parquet files have their columns checked here, before any record is read.

    Raises:
        InputSchemaError: there is no such file, or none of a readable kind, or a Parquet file
            without the columns of a sample.
        ConfigError: the protocol of the URL is unknown.
    """
    fs, path = _connect(source)
    if fs.isfile(path):
        found = {path: {"type": "file"}}
    elif fs.isdir(path):
        listing = {str(info["name"]): info for info in fs.ls(path, detail=True)}
        found = {p: info for p, info in listing.items() if not p.rpartition("/")[2].startswith(".")}
    else:
        found = fs.glob(path, detail=True)
    # Not "is a file": links, as hub caches have them, are of a type of their own.
    kept = sorted(
        p for p, info in found.items() if info["type"] != "directory" and _suffix(p) in _READERS
    )
    if not kept:
        met = f"only {len(found)} other entries" if found else "nothing"
        raise InputSchemaError(
            f"{source}: found {met}; give a .json, .jsonl or .parquet file, a directory with such "
            "files, or a glob such as 'data/**/*.parquet'"
        )
    local = isinstance(fs, LocalFileSystem)
    files = [InputFile(fs, p, p if local else fs.unstrip_protocol(p)) for p in kept]
    for file in files:
        if _suffix(file.path) == "parquet":
            _check_columns(file)
    return files


def _suffix(path: str) -> str:
    return path.rpartition(".")[2]


def _connect(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, path = connect(url)
    except (ImportError, ValueError) as exc:
        raise ConfigError(
            f"{url}: no file system for this address ({exc}); install the fsspec package of its "
            "protocol or correct the address"
        ) from exc
    return fs, path


def _check_columns(file: InputFile) -> None:
    """Check that a Parquet file has an id and the content of samples.

    Raises:
        InputSchemaError: it has not; the message lists what was found and what is expected.
    """
    try:
        with file.fs.open(file.path) as handle:
            schema = pq.read_schema(handle)
    except (OSError, pa.ArrowException) as exc:
        raise InputSchemaError(f"{file.url}: cannot be read as parquet ({exc})") from exc
    fields = {field.name: field.type for field in schema}
    has_content = any(_is_content(name, kind) for name, kind in fields.items())
    if not has_content or not any(name in fields for name in ID_KEYS):
        columns = ", ".join(f"{name}: {_short(kind)}" for name, kind in fields.items())
        raise InputSchemaError(
            f"{file.url}: the columns are [{columns}]; expected are an id ({' or '.join(ID_KEYS)}) "
            "and messages: list<struct<role, content>> or question: list<struct<text, image>>; "
            "rename the columns or convert the file"
        )


def _is_content(name: str, kind: pa.DataType) -> bool:
    """Whether a column of this name and type can hold messages or a question."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    is_list = any(check(kind) for check in lists)
    if name == "messages":
        return is_list and bool(pa.types.is_struct(kind.value_type))
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_struct)
    return name == "question" and (is_list or any(check(kind) for check in texts))


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parquet_records(file: InputFile) -> Iterator[Record]:
    with file.fs.open(file.path) as handle, pq.ParquetFile(handle) as parquet:
        index = 0
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                yield Record(row, f"{file.url}, row {index}")
                index += 1


def _jsonl_records(file: InputFile) -> Iterator[Record]:
    """One record per line that is not blank; lines end at newlines only, never inside a text."""
    with file.fs.open(file.path) as handle:
        for number, raw in enumerate(handle, start=1):
            where = f"{file.url}, line {number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                value = json.loads(line) if line else None
            except (ValueError, RecursionError) as exc:
                raise _not_json(where, exc) from exc
            if line:
                yield Record(value, where)


def _json_records(file: InputFile) -> Iterator[Record]:
    with file.fs.open(file.path) as handle:
        scanner = _JsonScanner(io.TextIOWrapper(handle, encoding="utf-8-sig"), file.url)
        if scanner.peek() == "[":
            yield from scanner.list_items()
        while scanner.peek():
            yield scanner.value()


_READERS: dict[str, Callable[[InputFile], Iterator[Record]]] = {
    "json": _json_records,
    "jsonl": _jsonl_records,
    "parquet": _parquet_records,
}


def _not_json(where: str, cause: object) -> InputSchemaError:
    return InputSchemaError(f"{where}: not valid JSON ({cause}); correct the file there")


class _JsonScanner:
    """Takes JSON values off a text stream, holding little more than the value being read."""

    def __init__(self, stream: TextIO, url: str) -> None:
        self._stream = stream
        self._url = url
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._line = 1
        self._ended = False

    def list_items(self) -> Iterator[Record]:
        """The items of the list that starts here; reads past its end."""
        self._advance(self._at + 1)
        while self.peek() != "]":
            yield self.value()
            if self.peek() == ",":
                self._advance(self._at + 1)
            elif self.peek() != "]":
                raise _not_json(self._where(), "expected a comma or the end of the list")
        self._advance(self._at + 1)
        if self.peek():
            raise _not_json(self._where(), "more text after the end of the list")

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            self._advance(cast(re.Match[str], _SPACE.match(self._text, self._at)).end())
            if self._at < len(self._text) or not self._read_on():
                return self._text[self._at : self._at + 1]

    def value(self) -> Record:
        """The next value, with the line it starts on."""
        self.peek()
        where = self._where()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as exc:
                stop = exc.pos - self._at
                if self._is_final(exc) or not self._read_on():
                    self._advance(self._at + stop)
                    raise _not_json(self._where(), exc.msg) from exc
            except (ValueError, RecursionError) as exc:  # a huge number, bottomless nesting
                raise _not_json(where, exc) from exc
            else:
                size = end - self._at
                # A number that ends where the text held so far ends may go on.
                if end < len(self._text) or not self._read_on():
                    self._advance(self._at + size)
                    return Record(value, where)

    def _is_final(self, exc: json.JSONDecodeError) -> bool:
        """Whether more text cannot mend it; else a bad line would pull the whole file in."""
        open_string = exc.msg.startswith("Unterminated string")
        return not open_string and exc.pos < len(self._text.rstrip()) - _TAIL_CHARS

    def _read_on(self) -> bool:
        """Drop what is behind, read as much again as is held (long values stay linear in time).

        Returns False, with nothing more read, at the end of the stream.
        """
        if not self._ended:
            self._text = self._text[self._at :]
            self._at = 0
            try:
                more = self._stream.read(max(_READ_CHARS, len(self._text)))
            except UnicodeDecodeError as exc:
                raise _not_json(f"{self._where()} or later", exc) from exc
            self._text += more
            self._ended = not more
        return not self._ended

    def _advance(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to

    def _where(self) -> str:
        return f"{self._url}, line {self._line}"
