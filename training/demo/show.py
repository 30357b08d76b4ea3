"""Print what the demo found: `python -m training.demo.show RUN`.

RUN is a run's folder, or the output folder that holds a single run. First come statements that the
model got right, with their sources beside the planted evidence; then scores, what the model cannot
do, and three commands to try next. Only Parquet is read.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omnitrace_core.printable import printable
from omnitrace_core.records import LabelSource
from pipeline.commands.terminal import Block, SafeParser, Table, print_blocks, print_error
from pipeline.plurals import counted
from training.demo.comparison import (
    Pair,
    Record,
    ScoredStatement,
    score_by_modality,
    score_statements,
)

EXAMPLES_PER_MODALITY = 2
_TEXT_CHARS, _STATEMENT_CHARS, _MESSAGE_CHARS = 44, 44, 160
_INTRODUCTION = """
The demo asks about a small world in which every sentence of an answer rests on evidence that was
planted in the input. Here are answers for which OmniTrace chose exactly the source units that hold
the evidence (mass: the mean of the signal on a source):
"""
_OUTSIDE = """\
Outside of that world ({count}): other texts, speech, pictures and clips, some with a response
written by hand. They were traced like the others, but the demo's tiny model knows only its world.
What it answers and attends to outside of it means nothing, so it is not shown. In its world, it
guesses where it has to count or compare. configs/qwen2_5_omni.yaml is for the full-size model.
"""
_TABLES = ("samples", "spans", "traces", "heatmaps")
_SAMPLE_COLUMNS = [
    "row_key",
    "sample_id",
    "status",
    "error_stage",
    "error_code",
    "message",
    "units",
    "labels",
    "messages",
    "metadata",
]
_SPAN_COLUMNS = ["row_key", "span_index", "text", "sources"]


@dataclass(frozen=True, slots=True)
class Report:
    """What the report is about.

    statements: of the labelled samples, in the order of the input. n_outside: samples that were
    traced and have no labels.
    """

    samples: Sequence[Record]
    statements: Sequence[ScoredStatement]
    n_outside: int
    n_rows: Mapping[str, int]


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
        f"{folder} contains no samples/; {len(runs)} finished runs below it ({names}); "
        "name the folder run_date=.../run_id=... of one run"
    )


def read_report(run: Path) -> Report:
    """Read a run's samples and spans, and score the labelled ones."""
    samples = _read(run, "samples", _SAMPLE_COLUMNS)
    spans_of: dict[str, list[Record]] = {}
    for span in _read(run, "spans", _SPAN_COLUMNS):
        spans_of.setdefault(span["row_key"], []).append(span)
    traced = [sample for sample in samples if sample["status"] == "ok"]
    statements = [
        statement
        for sample in traced
        if sample["labels"]
        for statement in score_statements(
            sample, sorted(spans_of.get(sample["row_key"], []), key=lambda span: span["span_index"])
        )
    ]
    n_outside = sum(not sample["labels"] for sample in traced)
    return Report(samples, statements, n_outside, {table: _n_rows(run, table) for table in _TABLES})


def blocks(folder: Path) -> Iterator[Block]:
    """The report on the run in `folder`, as texts and tables.

    Raises:
        FileNotFoundError: there is no finished run, or more than one to choose from.
    """
    run = find_run(folder)
    report = read_report(run)
    yield from _example_blocks(report)
    yield from _score_blocks(report)
    yield from _error_blocks(report.samples)
    yield from _total_blocks(run, report)
    yield from _next_blocks(folder, report)


def source_name(source: Record) -> str:
    """A source in words: `image part 2 [0, 0, 128, 96]`, `audio part 0 1.0-2.0 s`."""
    name = f"{source['modality']} part {source['part_index']}"
    if source["modality"] == "text":
        return f"{name} {_quote(source['text'], _TEXT_CHARS)}" if source["text"] else name
    if source["modality"] == "image" and source["box"] is None:
        return name
    if source["modality"] == "image":
        return f"{name} [{', '.join(f'{edge:.0f}' for edge in source['box'])}]"
    if source["kind"].startswith("sound"):
        name += " sound"
    if source["start_s"] is None:
        return name
    transcript = f" {_quote(source['transcript'], _TEXT_CHARS)}" if source["transcript"] else ""
    return f"{name} {source['start_s']:.1f}-{source['end_s']:.1f} s{transcript}"


def examples(statements: Sequence[ScoredStatement]) -> list[ScoredStatement]:
    """Statements whose sources are exactly the units that hold the planted evidence.

    Some of each modality: at most one of a sample, and of different tasks as far as there are such.
    """
    right = [statement for statement in statements if statement.f1 == 1.0]
    chosen: dict[str, ScoredStatement] = {}
    count: Counter[str] = Counter()
    tasks: set[tuple[str, str]] = set()
    for may_repeat_task in (False, True):
        for statement in right:
            task = (statement.modality, statement.task)
            is_full = count[statement.modality] == EXAMPLES_PER_MODALITY
            is_new = statement.sample_id not in chosen and (may_repeat_task or task not in tasks)
            if is_new and not is_full:
                chosen[statement.sample_id] = statement
                count[statement.modality] += 1
                tasks.add(task)
    modalities = list(dict.fromkeys(statement.modality for statement in right))
    return sorted(chosen.values(), key=lambda statement: modalities.index(statement.modality))


def _read(run: Path, table: str, columns: Sequence[str]) -> list[Record]:
    from pyarrow.parquet import ParquetFile

    rows: list[Record] = []
    for path in sorted((run / table).glob("*.parquet")):
        with ParquetFile(path) as file:
            rows += file.read(columns=columns).to_pylist()
    return rows


def _n_rows(run: Path, table: str) -> int:
    from pyarrow.parquet import read_metadata

    return sum(int(read_metadata(path).num_rows) for path in (run / table).glob("*.parquet"))


def _example_blocks(report: Report) -> Iterator[Block]:
    found = examples(report.statements)
    if not found:
        return
    rows = [row for statement in found for row in _example_rows(statement)]
    yield _INTRODUCTION
    yield Table(
        ("question and answer", "mass", "OmniTrace's source", "planted evidence"),
        rows,
        right=frozenset({"mass"}),
    )
    yield ""


def _example_rows(statement: ScoredStatement) -> Iterator[tuple[str, ...]]:
    if statement.question:
        yield (_clip(statement.question, _MESSAGE_CHARS), "", "", "")
    text = _quote(statement.statement, _STATEMENT_CHARS)
    for pair in statement.pairs:
        yield (text, *_pair_cells(pair))
        text = ""


def _pair_cells(pair: Pair) -> tuple[str, str, str]:
    mass = source = planted = ""
    if pair.chosen is not None:
        mass, source = f"{pair.chosen['mass']:.2f}", source_name(pair.chosen)
    if pair.planted is not None:
        planted = _planted_name(pair.planted, pair.text)
    return mass, source, planted


def _planted_name(evidence: LabelSource, text: str) -> str:
    return source_name(
        {**asdict(evidence), "kind": evidence.modality, "text": text, "transcript": ""}
    )


def _score_blocks(report: Report) -> Iterator[Block]:
    if not report.statements:
        return
    rows = [
        (modality, str(score.n_statements), str(score.n_said), f"{score.mean_f1:.2f}")
        for modality, score in score_by_modality(report.statements).items()
    ]
    columns = ("evidence", "planted sentences", "said", "F1 of their sources")
    yield Table(
        columns,
        rows,
        "All sentences with planted evidence (F1 of chosen against planted sources, 0 if not said)",
        right=frozenset(columns[1:]),
    )
    yield ""


def _error_blocks(samples: Sequence[Record]) -> Iterator[Block]:
    rows = [
        (
            _clip(sample["sample_id"] or f"row {sample['row_key']}", _STATEMENT_CHARS),
            str(sample["error_stage"]),
            str(sample["error_code"]),
            _clip(sample["message"], _MESSAGE_CHARS),
        )
        for sample in samples
        if sample["status"] != "ok"
    ]
    if rows:
        yield Table(("sample", "stage", "error", "message"), rows, "Errors")
        yield ""


def _total_blocks(run: Path, report: Report) -> Iterator[Block]:
    n_ok = sum(sample["status"] == "ok" for sample in report.samples)
    tables = ", ".join(f"{table}/ {counted(n, 'row')}" for table, n in report.n_rows.items() if n)
    yield (
        f"{counted(len(report.samples), 'sample')} ({n_ok} ok, "
        f"{counted(len(report.samples) - n_ok, 'error')}), "
        f"as Parquet in\n{printable(run)}:\n{tables}.\n"
    )
    if report.n_outside:
        yield _OUTSIDE.format(count=counted(report.n_outside, "sample"))


def _next_blocks(folder: Path, report: Report) -> Iterator[Block]:
    named = [s.sample_id for s in examples(report.statements) if s.modality == "audio"]
    named += [sample["sample_id"] for sample in report.samples if sample["sample_id"]]
    omnitrace, python = _command("omnitrace"), _command("python")
    where = shlex.quote(str(folder))
    spans = shlex.quote(f"{folder.as_posix()}/**/spans/*.parquet")
    yield "Three things to try next"
    yield ""
    yield "1. Look at one sample: its messages, its response, the sources of each sentence."
    yield f"   {omnitrace} inspect {where} {shlex.quote(named[0] if named else 'SAMPLE_ID')}"
    yield ""
    yield "2. Ask the tables: how much do text, pictures, sound and video support?"
    yield f'   {python} -c \'import duckdb, sys; duckdb.sql("""'
    yield "     select source.modality, count(*) as n, round(avg(source.mass), 3) as mean_mass"
    yield "     from (select unnest(sources) as source from read_parquet($1))"
    yield f'     group by all order by n desc""", params=sys.argv[1:]).show()\' {spans}'
    yield ""
    yield "3. Curate the run again with the paper's settings. The model is not needed for it."
    yield f"   {omnitrace} curate {where} out/mine/paper curation.preset=paper"
    yield ""
    yield 'To trace samples of your own, see "Use it" in README.md.'


def _command(name: str) -> str:
    """How to start a program of this environment from the current folder."""
    path = Path(sys.executable).with_name(name)
    try:
        return shlex.quote(str(path.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(path))


def _quote(text: str, width: int) -> str:
    return f'"{_clip(text, width - 2)}"'


def _clip(text: str, width: int) -> str:
    """The text on one line, at most `width` long."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else f"{line[: width - 3]}..."


def main(argv: list[str] | None = None) -> int:
    """Print the report; 2 if there is no run, or several."""
    parser = SafeParser(prog="python -m training.demo.show", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder, or the output folder of one run")
    arguments = parser.parse_args(argv)
    try:
        print_blocks(list(blocks(arguments.run)))
    except FileNotFoundError as error:
        print_error(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
