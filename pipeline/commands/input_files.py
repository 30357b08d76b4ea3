"""Find the input files of `ingest` and `trace`, and read their records one by one.

JSON is read incrementally (a list of any length, one object, or several objects in sequence), JSON
Lines by line, Parquet in small batches, so that memory holds only a few records at a time.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from omnitrace_core.access.stores import store_of
from omnitrace_core.base_options import is_utf8
from omnitrace_core.errors import ConfigError, DamagedFile, InputSchemaError, StoreUnavailable
from omnitrace_core.runtime.node_faults import raise_if_node_fault
from omnitrace_core.samples.forms import ID_KEYS
from omnitrace_core.storage.files import check_mount_of, connect
from pipeline.commands.json_records import JsonScanner, ParsedRecord, not_json
from pipeline.planning.media_stores import media_roots_of
from pipeline.plurals import counted
from pipeline.storage.addresses import HIDDEN_BY, absolute_path, is_hidden
from stages.arrow.input_columns import misspelled
from stages.arrow.parquet_reader import ParquetReader
from stages.arrow.plain_types import plain_table, plain_type
from stages.arrow.sample_schema import SAMPLE

_READ = "read"
_HIDDEN = "hidden file"
_WILDCARD = re.compile(r"[*?\[]")
_REFERENCE_KEYS = ("prompt", "question", "answer")  # of the paper's release


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to read. path: in `fs`. url: its address, a plain path if it is local."""

    fs: fsspec.AbstractFileSystem
    path: str
    url: str

    @property
    def folder(self) -> str:
        """The folder that relative addresses in the file start at."""
        return self.url.rpartition("/")[0] or "/"

    def media_roots(self) -> tuple[str, ...]:
        """The store that the file lies on, and those that a shard of `ingest` names."""
        own = store_of(self.url)
        roots = (own,) if own else ()
        if _suffix(self.path) != "parquet":
            return roots
        with self.fs.open(self.path) as handle:
            return (*roots, *media_roots_of(pq.read_schema(handle), self.url))

    def records(self) -> Iterator[ParsedRecord]:
        """The records in order.

        Raises:
            InputSchemaError: the file cannot be read or parsed.
        """
        suffix = _suffix(self.path)
        try:
            yield from _READERS[suffix](self)
        except StoreUnavailable:
            raise
        except (OSError, pa.ArrowException) as exc:
            raise_if_node_fault(exc)
            check_mount_of(self.url)
            raise InputSchemaError(
                f"{self.url}: cannot be read as {suffix} ({exc}); check it and its permissions"
            ) from exc


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The input files, sorted by path. left_out: says what else was found and is not read."""

    files: list[InputFile]
    left_out: tuple[str, ...] = ()


def find_files(source: str) -> FoundFiles:
    """The input files of a file path, directory, fsspec URL or glob.

    A directory gives the .json, .jsonl and .parquet files directly in it, and a glob those that it
    matches, both without hidden ones (`_hides`). The columns of Parquet files are checked here,
    before any record is read.

    Raises:
        InputSchemaError: there is no such file, none of a readable kind, one whose name is not
            UTF-8, or a Parquet file without the columns of a sample.
        ConfigError: the address cannot be read as one.
        NodeFault: the local file system that it lies on does not answer.
    """
    fs, path = _connect(absolute_path(source))
    glob = path
    if fs.isfile(path):
        entries = {path: "file"}
    elif fs.isdir(path):
        entries = {str(info["name"]): str(info["type"]) for info in fs.ls(path, detail=True)}
        glob = f"{path.rstrip('/')}/*"
    else:
        entries = {str(p): str(info["type"]) for p, info in fs.glob(path, detail=True).items()}
    kinds = _by_kind(entries, glob)
    kept = kinds.pop(_READ)
    left_out = tuple(_left_out(kinds, glob))
    if not kept:
        check_mount_of(f"{absolute_path(source)}/x")
        others = f"only {', '.join(left_out)}" if left_out else "nothing"
        raise InputSchemaError(
            f"{source}: found {others}; give a .json, .jsonl or .parquet file, a directory with "
            "such files, or a glob such as 'data/**/*.parquet'"
        )
    local = isinstance(fs, LocalFileSystem)
    files = [InputFile(fs, p, p if local else fs.unstrip_protocol(p)) for p in kept]
    for file in files:
        if not is_utf8(file.url):
            raise InputSchemaError(f"{file.url!r}: its name is not UTF-8; rename it")
        if _suffix(file.path) == "parquet":
            _check_columns(file)
    return FoundFiles(files, left_out)


def _by_kind(entries: Mapping[str, str], glob: str) -> dict[str, list[str]]:
    """The paths to read, and those to leave out by their kind.

    entries: type of each path. glob: finds them all; the path itself if that is a file.
    """
    kinds: dict[str, list[str]] = {_READ: [], _HIDDEN: [], "folder": [], "other file": []}
    for path, kind in sorted(entries.items()):
        # Not `type != "file"`: links, as in hub caches, have the type "link".
        if kind == "directory":
            kinds["folder"].append(path)
        elif _suffix(path) not in _READERS:
            kinds["other file"].append(path)
        elif _hides(glob, path):
            kinds[_HIDDEN].append(path)
        else:
            kinds[_READ].append(path)
    return kinds


def _hides(glob: str, path: str) -> bool:
    """Whether a path that the glob matches is left out: a name in it begins with `_` or `.`.

    A file's name counts as given if the last step of the glob begins with the same character, and
    a folder's if a folder step does.
    """
    fixed, (*patterns, last) = _split(glob)
    *folders, name = path.split("/")[len(fixed) :]
    given = {step[:1] for step in patterns}
    return (is_hidden(name) and name[0] != last[:1]) or any(
        is_hidden(step) and step[0] not in given for step in folders
    )


def _split(glob: str) -> tuple[list[str], list[str]]:
    """The steps of a glob before the first with a wildcard, which name a folder, and the others.

    Without wildcards, the last step alone counts as the others.
    """
    steps = glob.split("/")
    n_fixed = next((i for i, step in enumerate(steps) if _WILDCARD.search(step)), len(steps) - 1)
    return steps[:n_fixed], steps[n_fixed:]


def _left_out(kinds: Mapping[str, Sequence[str]], glob: str) -> Iterator[str]:
    n_fixed = len(_split(glob)[0])
    for kind, paths in kinds.items():
        if paths:
            why = f" ({HIDDEN_BY})" if kind == _HIDDEN else ""
            shown = "/".join(paths[0].split("/")[n_fixed:])
            yield f"{counted(len(paths), kind)}{why}, such as {shown}"


def _suffix(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _connect(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, path = connect(url)
    except (ImportError, ValueError) as exc:
        raise ConfigError(
            f"{url}: no file system for this address ({exc}); install the fsspec package for its "
            "protocol, or correct the address"
        ) from exc
    return fs, path


def _check_columns(file: InputFile) -> None:
    """Check that a Parquet file has an id and the content of samples.

    Raises:
        InputSchemaError: they are missing; the message lists the columns found and expected.
    """
    try:
        with file.fs.open(file.path) as handle:
            schema = pq.read_schema(handle)
    except (OSError, pa.ArrowException) as exc:
        raise_if_node_fault(exc)
        check_mount_of(file.url)
        raise InputSchemaError(f"{file.url}: cannot be read as parquet ({exc})") from exc
    if problems := list(_name_problems(schema.names)):
        raise InputSchemaError(f"{file.url}: {'; '.join(problems)}")
    fields = {field.name: plain_type(field.type) for field in schema}
    has_content = any(_is_content(name, kind) for name, kind in fields.items())
    if not has_content or not any(name in fields for name in ID_KEYS):
        columns = ", ".join(f"{name}: {_short(kind)}" for name, kind in fields.items())
        raise InputSchemaError(
            f"{file.url}: the columns are [{columns}]; expected an id ({' or '.join(ID_KEYS)}) "
            "and messages: list<struct<role, content>> or question: list<struct<text, image>>; "
            "rename the columns or convert the file"
        )


def _name_problems(names: Sequence[str]) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"column {name} is there {names.count(name)} times; keep one of them"
    known = [name for name in (*SAMPLE.names, *_REFERENCE_KEYS) if name not in names]
    for spelled, name in misspelled(names, known):
        yield f"column {spelled!r} is not {name}: names are in lower case; rename or drop it"


def _is_content(name: str, kind: pa.DataType) -> bool:
    """Whether a column of this name and type can hold messages or a question."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if name == "messages":
        return is_list and bool(pa.types.is_struct(kind.value_type))
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_struct)
    return name == "question" and (is_list or any(check(kind) for check in texts))


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parquet_records(file: InputFile) -> Iterator[ParsedRecord]:
    with file.fs.open(file.path) as handle:
        try:
            yield from _records_of(ParquetReader(handle), file.url)
        except DamagedFile as exc:
            raise InputSchemaError(
                f"{file.url} cannot be decoded: {exc.message}; {exc.remedy}, or leave it out"
            ) from exc


def _records_of(parquet: ParquetReader, url: str) -> Iterator[ParsedRecord]:
    """Raises: DamagedFile, with the row group in its message."""
    for group in parquet.groups:
        index = group.first_row
        try:
            for batch in parquet.batches(group, None):
                for row in plain_table(pa.Table.from_batches([batch])).to_pylist():
                    yield ParsedRecord(row, f"{url}, row {index}")
                    index += 1
        except DamagedFile as exc:
            raise type(exc)(f"{group}: {exc.message}") from exc


def _jsonl_records(file: InputFile) -> Iterator[ParsedRecord]:
    """One record per line that is not blank. Only newlines end a line (not U+2028 in a text)."""
    with file.fs.open(file.path) as handle:
        for number, raw in enumerate(handle, start=1):
            where = f"{file.url}, line {number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                value = json.loads(line) if line else None
            except (ValueError, RecursionError) as exc:
                raise not_json(where, exc) from exc
            if line:
                yield ParsedRecord(value, where)


def _json_records(file: InputFile) -> Iterator[ParsedRecord]:
    with file.fs.open(file.path) as handle:
        scanner = JsonScanner(io.TextIOWrapper(handle, encoding="utf-8-sig"), file.url)
        if scanner.peek() == "[":
            yield from scanner.list_items()
        while scanner.peek():
            yield scanner.value()


_READERS: dict[str, Callable[[InputFile], Iterator[ParsedRecord]]] = {
    "json": _json_records,
    "jsonl": _jsonl_records,
    "parquet": _parquet_records,
}
