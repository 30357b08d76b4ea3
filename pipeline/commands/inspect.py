"""Show one sample of a published run: its messages, response, spans and their sources."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc

from omnitrace_core.addresses import shown_address
from omnitrace_core.errors import ConfigError, DamagedFile, RunError
from omnitrace_core.printable import printable
from pipeline.commands.terminal import Block, Table
from pipeline.plurals import counted
from pipeline.storage.folder import Folder
from stages.arrow.parquet_reader import ParquetReader

Record: TypeAlias = dict[str, object]  # a Parquet row as pyarrow gives it
_MAX_CHARS = 160  # of a text that is shortened


def inspect_sample(run_folder: str, sample_id: str) -> list[Block]:
    """What there is to show of a sample; of each, if several rows have this id.

    run_folder: of one run, or one above several runs.

    Raises:
        ConfigError: there is no run, or no such sample in it.
        RunError: a published file is damaged.
    """
    folder = Folder(run_folder)
    files = [name for name in folder.tree(".parquet") if _table_of(name) == "samples"]
    if not files:
        raise ConfigError(
            f"{run_folder!r} holds no published samples; give a run's folder, "
            "<output.path>/run_date=.../run_id=..., or one above it"
        )
    blocks: list[Block] = []
    for name in files:
        for sample in _rows(folder, name, "sample_id", sample_id):
            # While a retry replaces the files of a shard, spans/ may be newer than samples/.
            tables = ("spans", "heatmaps") if sample["status"] == "ok" else ()
            spans, heatmaps = (
                _rows(folder, _sibling(name, table), "row_key", str(sample["row_key"]))
                if table in tables
                else []
                for table in ("spans", "heatmaps")
            )
            if blocks:
                blocks.append("")
            blocks.append(printable(folder.url(name)))
            blocks += _sample_blocks(sample, spans, heatmaps)
    if not blocks:
        raise ConfigError(
            f"no sample {sample_id!r} in the {counted(len(files), 'shard')} under {run_folder}"
        )
    return blocks


def _table_of(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else ""


def _sibling(name: str, table: str) -> str:
    *above, _, file = name.split("/")
    return "/".join([*above, table, file])


def _rows(folder: Folder, name: str, column: str, value: str) -> list[Record]:
    """Rows of a published file with this value; none of a table that the run does not keep."""
    if not folder.exists(name):
        return []
    try:
        with folder.open(name) as file, ParquetReader(file) as parquet:
            found = [parquet.read(group) for group in parquet.groups]
            table = pa.concat_tables([parquet.schema.empty_table(), *found])
    except DamagedFile as error:
        raise RunError(
            f"{folder.url(name)} cannot be decoded: {error.message}; restore it, or delete it and "
            "its manifest in _manifests/ and run again"
        ) from error
    matching = table.filter(pc.equal(table.column(column), value))
    rows: list[Record] = matching.to_pylist(maps_as_pydicts="strict")
    return rows


def _sample_blocks(sample: Record, spans: list[Record], heatmaps: list[Record]) -> Iterator[Block]:
    head = f"{sample['sample_id']}  ({sample['row_key']}): {sample['status']}"
    yield printable(head)
    if sample["status"] == "error":
        yield printable(
            f"error in {sample['error_stage']}, {sample['error_code']}: {sample['message']}"
        )
    if parts := list(_part_rows(sample)):
        yield ""
        yield Table(("part", "role", "type", "content"), parts, right=frozenset({"part"}))
    if sample["response"] is not None:
        yield "\nresponse:"
        yield textwrap.indent(printable(sample["response"], lines=True), "  ", lambda line: True)
    for span in spans:
        yield ""
        yield from _span_blocks(span)
        for heatmap in heatmaps:
            if heatmap["span_index"] == span["span_index"]:
                yield printable(_strongest_place(heatmap))
    for note in cast("list[str]", sample["notes"]):
        yield printable(f"note: {note}")


def _part_rows(sample: Record) -> Iterator[tuple[str, ...]]:
    """A row per part of the messages, numbered as `part_index` counts them."""
    index = 0
    for message in _list(sample["messages"]):
        for part in _list(message["content"]):
            is_text = part["type"] == "text"
            content = part["text"] if is_text else _address(part)
            yield str(index), str(message["role"]), str(part["type"]), _short(content)
            index += 1


def _address(part: Record) -> str:
    """Where the media of a published part lie; of a list of frames, the first."""
    frames = _list(part.get("frames"))
    if not frames:
        return shown_address(str(part["uri"] or ""))
    return f"{len(frames)} frames: {shown_address(str(frames[0]['uri'] or ''))}, ..."


def _span_blocks(span: Record) -> Iterator[Block]:
    title = (
        f"span {span['span_index']}, {span['outcome']}, confidence {span['confidence']:.3f}: "
        f"{_short(span['text'])}"
    )
    sources = [
        (
            str(source["rank"]),
            str(source["part_index"]),
            _place(source),
            f"{source['mass']:.3f}",
            f"{source['share']:.2f}",
        )
        for source in _list(span["sources"])
    ]
    if not sources:
        yield printable(title)
        return
    columns = ("rank", "part", "source", "mass", "share")
    yield Table(columns, sources, title, right=frozenset({"rank", "part", "mass", "share"}))


def _strongest_place(heatmap: Record) -> str:
    """Where a heat map is strongest, in pixels of the original picture."""
    patches = cast("list[int]", heatmap["patches"])
    n_rows, n_columns, width, height, scale = (
        cast("float", heatmap[name]) for name in ("n_rows", "n_columns", "width", "height", "scale")
    )
    row, column = divmod(patches.index(max(patches)), int(n_columns))
    patch_width, patch_height = width / n_columns, height / n_rows
    box = (
        column * patch_width,
        row * patch_height,
        (column + 1) * patch_width,
        (row + 1) * patch_height,
    )
    start_s, end_s = heatmap["start_s"], heatmap["end_s"]
    time = "" if start_s is None else f" {start_s:.2f}-{end_s:.2f} s"
    return (
        f"heat map of part {heatmap['part_index']}, {heatmap['modality']}{time}: strongest at "
        f"{[round(edge) for edge in box]}, {max(patches) * scale:.4f}"
    )


def _place(source: Record) -> str:
    """The source's kind, and where it lies in the original media."""
    place = str(source["kind"])
    if source["start_s"] is not None:
        place += f" {source['start_s']:.2f}-{source['end_s']:.2f} s"
    if source["box"] is not None:
        place += f" box {[round(edge) for edge in cast('list[float]', source['box'])]}"
    words = source["transcript"] or source["text"]
    return f'{place} "{_short(words)}"' if words else place


def _short(text: object) -> str:
    return textwrap.shorten(str(text or ""), _MAX_CHARS, placeholder=" ...")


def _list(value: object) -> list[Record]:
    return cast("list[Record]", value or [])
