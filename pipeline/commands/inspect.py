"""One sample of a published run, in words."""

from __future__ import annotations

import textwrap
from typing import TypeAlias, cast

import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnitrace_core.addresses import shown_address
from omnitrace_core.errors import ConfigError
from pipeline.storage.folder import Folder

Row: TypeAlias = dict[str, object]
_SHOWN_CHARS = 160


def inspect_sample(run_folder: str, sample_id: str) -> str:
    """The sample's messages in short, its response, and its spans with their sources.

    run_folder: of one run, or one above several; every row of this id that is found is shown.

    Raises:
        ConfigError: there is no run, or no such sample in it.
    """
    storage = Folder(run_folder)
    tables = [name for name in storage.tree(".parquet") if _table_of(name) == "samples"]
    if not tables:
        raise ConfigError(
            f"{run_folder!r} holds no published samples; give a run's folder, "
            "<output.path>/run_date=.../run_id=..., or one above it"
        )
    shown = []
    for name in tables:
        for sample in _rows(storage, name, "sample_id", sample_id):
            spans, maps = (
                _rows(storage, _sibling(name, table), "row_key", str(sample["row_key"]))
                for table in ("spans", "heatmaps")
            )
            shown.append(f"{storage.url(name)}\n{_sample_text(sample, spans, maps)}")
    if not shown:
        raise ConfigError(f"no sample {sample_id!r} in the {len(tables)} shards under {run_folder}")
    return "\n\n".join(shown)


def _table_of(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else ""


def _sibling(name: str, table: str) -> str:
    *above, _, file = name.split("/")
    return "/".join([*above, table, file])


def _rows(storage: Folder, name: str, column: str, value: str) -> list[Row]:
    """Rows of a published file with this value; none of a table that the run does not keep."""
    if not storage.exists(name):
        return []
    # Not read_table with a filter: its I/O threads can outlive main and abort the process at exit.
    with storage.open(name) as file, pq.ParquetFile(file) as table:
        found = table.read(use_threads=False)
    mine = found.filter(pc.equal(found.column(column), value))
    rows: list[Row] = mine.to_pylist(maps_as_pydicts="strict")
    return rows


def _sample_text(sample: Row, spans: list[Row], maps: list[Row]) -> str:
    lines = [f"{sample['sample_id']}  ({sample['row_key']}): {sample['status']}", *_asked(sample)]
    if sample["status"] == "error":
        lines.append(
            f"error in {sample['error_stage']}, {sample['error_code']}: {sample['message']}"
        )
    if sample["response"] is not None:
        lines += ["response:", textwrap.indent(str(sample["response"]), "  ")]
    for span in spans:
        lines += _span_lines(span)
        lines += [_peak(item) for item in maps if item["span_index"] == span["span_index"]]
    lines += [f"note: {note}" for note in cast("list[str]", sample["notes"])]
    return "\n".join(lines)


def _asked(sample: Row) -> list[str]:
    """The messages, one line per part, numbered as `part_index` counts."""
    lines, index = [], 0
    for message in _list(sample["messages"]):
        lines.append(f"{message['role']}:")
        for part in _list(message["content"]):
            said = part["text"] if part["type"] == "text" else shown_address(str(part["uri"] or ""))
            lines.append(f"  [{index}] {part['type']}: {_short(said)}")
            index += 1
    return lines


def _span_lines(span: Row) -> list[str]:
    head = f"span {span['span_index']}, {span['outcome']}, confidence {span['confidence']:.3f}: "
    lines = [head + _short(span["text"])]
    for source in _list(span["sources"]):
        lines.append(
            f"  {source['rank']}. {_place(source)}  mass {source['mass']:.3f}, "
            f"share {source['share']:.2f}"
        )
    return lines


def _peak(heat: Row) -> str:
    """Where a heat map is strongest, in pixels of the original picture."""
    patches = cast("list[int]", heat["patches"])
    n_rows, n_columns, width, height, scale = (
        cast("float", heat[name]) for name in ("n_rows", "n_columns", "width", "height", "scale")
    )
    row, column = divmod(patches.index(max(patches)), int(n_columns))
    wide, high = width / n_columns, height / n_rows
    edges = (column * wide, row * high, (column + 1) * wide, (row + 1) * high)
    when = "" if heat["start_s"] is None else f" {heat['start_s']:.2f}-{heat['end_s']:.2f} s"
    return (
        f"  heat map [{heat['part_index']}] {heat['modality']}{when}: strongest at "
        f"{[round(edge) for edge in edges]}, {max(patches) * scale:.4f}"
    )


def _place(source: Row) -> str:
    """Where a source lies in the original media."""
    where = f"[{source['part_index']}] {source['kind']}"
    if source["start_s"] is not None:
        where += f" {source['start_s']:.2f}-{source['end_s']:.2f} s"
    if source["box"] is not None:
        where += f" box {[round(edge) for edge in cast('list[float]', source['box'])]}"
    said = source["transcript"] or source["text"]
    return f"{where} {_short(said)!r}" if said else where


def _short(text: object) -> str:
    return textwrap.shorten(str(text or ""), _SHOWN_CHARS, placeholder=" ...")


def _list(value: object) -> list[Row]:
    return cast("list[Row]", value or [])
