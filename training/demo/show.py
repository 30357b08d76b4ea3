"""Print a finished run for people: `python -m training.demo.show RUN`.

RUN is a run's folder, or the output folder that holds a single run. Only Parquet is read, so the
same tables can be had in DuckDB, Polars or pandas; the last lines say how.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from omnitrace_core.records import LabelSource
from training.demo.planted import Found, means, scored

Record = Mapping[str, Any]  # a Parquet row as pyarrow gives it

WIDTH = 100
SPANS_PER_SAMPLE = 2
SOURCES_PER_SPAN = 3
_SAMPLE_COLUMNS = [
    "row_key",
    "sample_id",
    "status",
    "finish_reason",
    "error_stage",
    "error_code",
    "message",
    "units",
    "labels",
]
_SPAN_COLUMNS = ["row_key", "span_index", "text", "outcome", "confidence", "sources"]


def find_run(folder: Path) -> Path:
    """The run's own folder: `folder`, or the only run below it.

    Raises:
        FileNotFoundError: there is no finished run, or more than one to choose from.
    """
    if (folder / "samples").is_dir():
        return folder
    runs = sorted(path.parent for path in folder.glob("run_date=*/run_id=*/samples"))
    if len(runs) == 1:
        return runs[0]
    names = ", ".join(map(str, runs)) or "none"
    raise FileNotFoundError(
        f"{folder} has no samples/ of its own and {len(runs)} finished runs below it ({names}); "
        "name the folder run_date=.../run_id=... of one run"
    )


def lines(run: Path) -> Iterator[str]:
    """The report on a run, line by line."""
    samples = _read(run, "samples", _SAMPLE_COLUMNS)
    spans = _read(run, "spans", _SPAN_COLUMNS)
    by_row: dict[str, list[Record]] = {}
    for span in spans:
        by_row.setdefault(span["row_key"], []).append(span)
    found: list[Found] = []
    for sample in samples:
        if sample["status"] != "ok":
            continue
        ordered = sorted(by_row.get(sample["row_key"], []), key=lambda span: span["span_index"])
        if sample["labels"]:
            statements = list(scored(sample, ordered))
            found += statements
            yield from labelled_lines(sample, statements)
        else:
            yield from _sample_lines(sample, ordered)
    yield from score_lines(found)
    yield from _error_lines([sample for sample in samples if sample["status"] != "ok"])
    yield from _total_lines(samples, spans)
    yield from _file_lines(run)
    yield from _next_lines(run)


def source_name(source: Record) -> str:
    """A source as people say it: `image part 2 [0, 0, 128, 96]`, `audio part 0 1.0-2.0 s`."""
    name = f"{source['modality']} part {source['part_index']}"
    if source["modality"] == "text":
        return f"{name} {_quote(source['text'], 48)}" if source["text"] else name
    if source["modality"] == "image" and source["box"] is None:
        return name
    if source["modality"] == "image":
        return f"{name} [{', '.join(f'{edge:.0f}' for edge in source['box'])}]"
    if source["kind"].startswith("sound"):
        name += " sound"
    if source["start_s"] is None:
        return name
    heard = f" {_quote(source['transcript'], 32)}" if source["transcript"] else ""
    return f"{name} {source['start_s']:.1f}-{source['end_s']:.1f} s{heard}"


def _read(run: Path, table: str, columns: Sequence[str]) -> list[Record]:
    from pyarrow.parquet import ParquetFile

    rows: list[Record] = []
    for path in sorted((run / table).glob("*.parquet")):
        with ParquetFile(path) as file:
            rows += file.read(columns=columns).to_pylist()
    return rows


def _sample_lines(sample: Record, spans: Sequence[Record]) -> Iterator[str]:
    how = {
        "given": "response given, replayed",
        "stop": "response generated",
        "length": "response generated, cut at decode.max_new_tokens",
    }[sample["finish_reason"]]
    yield f"{sample['sample_id']}  ({how})"
    for span in spans[:SPANS_PER_SAMPLE]:
        verdict = f"{span['outcome']} {span['confidence']:.2f}"
        yield _columns(f"  {_quote(span['text'], 74)}", verdict)
        sources = sorted(span["sources"], key=lambda source: source["rank"])
        for source in sources[:SOURCES_PER_SPAN]:
            yield _columns(f"      {source_name(source)}", f"{source['mass']:.2f}")
        yield from _more(len(sources) - SOURCES_PER_SPAN, "source", indent=6)
    yield from _more(len(spans) - SPANS_PER_SAMPLE, "span", indent=2)
    yield ""


def labelled_lines(sample: Record, statements: Sequence[Found]) -> Iterator[str]:
    """A sample's labelled statements, each with its sources beside those of the label."""
    yield f"{sample['sample_id']}  (chosen sources | planted evidence)"
    for item in statements:
        if item.span is None:
            yield _columns(f"  not said: {_quote(item.statement, 70)}", "F1 0.00")
            continue
        yield _columns(f"  {_quote(item.statement, 74)}", f"F1 {item.score:.2f}")
        sources = sorted(item.span["sources"], key=lambda source: source["rank"])
        chosen = [f"{source['mass']:5.2f} {source_name(source)}" for source in sources]
        planted = [source_name(_as_record(*piece)) for piece in item.planted]
        for left, right in zip_longest(chosen[:SOURCES_PER_SPAN], planted, fillvalue=""):
            half = WIDTH // 2 - 4
            yield f"    {_clip(left, half):<{half}} | {_clip(right, half)}"
    yield ""


def _as_record(source: LabelSource, text: str) -> Record:
    return {**asdict(source), "kind": source.modality, "text": text, "transcript": ""}


def score_lines(found: Sequence[Found]) -> Iterator[str]:
    """Mean scores by modality, nothing if nothing is labelled."""
    if not found:
        return
    yield "F1 of chosen against planted sources, by what the evidence is"
    for modality, (mean, count) in sorted(means(found).items()):
        yield f"  {modality:8} {mean:.2f}  ({count} statements)"
    yield ""


def _more(count: int, noun: str, indent: int) -> Iterator[str]:
    if count > 0:
        yield f"{' ' * indent}... and {count} more {noun}{'s' if count > 1 else ''}"


def _error_lines(failed: Sequence[Record]) -> Iterator[str]:
    if not failed:
        return
    yield "Errors"
    for sample in failed:
        name = sample["sample_id"] or f"row {sample['row_key']}"
        yield _clip(f"  {name}: {sample['error_code']} in {sample['error_stage']}", WIDTH)
        yield _clip(f"      {_plain(sample['message'])}", WIDTH)
    yield ""


def _total_lines(samples: Sequence[Record], spans: Sequence[Record]) -> Iterator[str]:
    status = Counter(sample["status"] for sample in samples)
    outcome = Counter(span["outcome"] for span in spans)
    named = Counter(source["modality"] for span in spans for source in span["sources"])
    modalities = ", ".join(f"{name} {count}" for name, count in sorted(named.items()))
    yield (
        f"{len(samples)} samples ({status['ok']} ok, {len(samples) - status['ok']} errors), "
        f"{len(spans)} spans ({outcome['supported']} supported)"
    )
    yield f"{named.total()} sources named: {modalities or 'none'}"
    yield ""
    yield "The numbers: behind a span its outcome and confidence, with a source its mass (the POS-"
    yield "weighted mean of the signal). The demo's model knows its planted world and nothing else:"
    yield "what it answers, and attends to, in the other samples says nothing."
    yield ""


def _file_lines(run: Path) -> Iterator[str]:
    yield f"Files in {run}"
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        yield f"{path.stat().st_size:>10,}  {path.relative_to(run).as_posix()}"
    yield ""


def _next_lines(run: Path) -> Iterator[str]:
    yield "To go on, in Python:"
    yield "  import duckdb"
    yield '  duckdb.sql("""'
    yield "    select sample_id, span_index, unnest(sources, recursive := true)"
    yield f"    from '{(run / 'spans').as_posix()}/*.parquet'"
    yield '  """).show()'


def _columns(left: str, right: str) -> str:
    """`left` at the margin, `right` flush with the page's edge, at most WIDTH wide."""
    room = WIDTH - len(right) - 1
    return f"{_clip(left, room):<{room}} {right}"


def _quote(text: str, width: int) -> str:
    return f'"{_clip(_plain(text), width - 2)}"'


def _plain(text: str) -> str:
    """One line without control characters, which would act on the terminal."""
    spaced = " ".join(text.split())
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in spaced
    )


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.demo.show", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder, or the output folder of one run")
    args = parser.parse_args(argv)
    try:
        run = find_run(args.run)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    for line in lines(run):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
