"""What commands print: tables on a terminal, text elsewhere, control characters nowhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.printable import printable
from pipeline.cli import main
from pipeline.commands.summary import verdict_blocks
from pipeline.commands.terminal import (
    WIDTH,
    Block,
    Table,
    draws_tables,
    plain,
    print_blocks,
    print_error,
    print_text,
    printable_warnings,
)
from pipeline.driver.progress import Progress
from pipeline.driver.run import run
from pipeline.run_folder.verdict import Verdict
from pipeline.storage.folder import Folder
from tests.pipeline.made_runs import Worker, config_for, planned_run, write_input

# Clears the screen, sets the title, colours, overwrites the line, reverses the direction; and a
# line that looks like ours.
HOSTILE = "a\x1b[2J\x1b]0;title\x07\x1b[31m\rb\x9b7m\x7f\u202ec\u2028\nrun r1: done"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FORGED = re.compile(r"^run r1: done", flags=re.M)
TABLE = Table(("name", "n"), [("first", "1"), ("two", "22")], "Title", frozenset({"n"}))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def assert_safe(text: str, drawn: bool = False) -> None:
    """No control character but newlines; of escapes only the bold of our own headings."""
    if drawn:
        assert set(COLOUR.findall(text)) <= {"\x1b[1m", "\x1b[0m", "\x1b[1;0m"}
        text = COLOUR.sub("", text)
    assert [line for line in text.split("\n") if not line.isprintable()] == []
    assert not FORGED.search(text)


def test_tables_are_aligned_text_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    print_blocks(["before", TABLE, "after"])
    assert capsys.readouterr().out == ("before\nTitle\nname    n\nfirst   1\ntwo    22\nafter\n")


def test_wide_cells_are_wrapped_to_the_page() -> None:
    cells = ("words " * 40, "x" * 300)
    lines = plain([Table(("a", "b"), [cells])]).split("\n")
    assert max(map(len, lines)) <= WIDTH
    assert "".join("".join(lines).split()).count("x") == 300


@pytest.mark.parametrize(
    ("environment", "drawn"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "CI": "true"}, False),
    ],
)
def test_tables_are_drawn_on_terminals_that_can(
    environment: Mapping[str, str], drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    assert draws_tables(terminal) == drawn
    assert not draws_tables(io.StringIO())
    print_blocks([HOSTILE.replace("\n", " "), TABLE], terminal)
    assert ("\N{BOX DRAWINGS LIGHT HORIZONTAL}" in terminal.getvalue()) == drawn
    assert_safe(terminal.getvalue(), drawn)


def test_cells_titles_and_markup_are_only_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    blocks: list[Block] = [Table(("a", "b"), [(HOSTILE, "[red]:bell:[/red] http://a.b")], HOSTILE)]
    terminal = Terminal()
    print_blocks(blocks, terminal)
    for text, drawn in ((terminal.getvalue(), True), (plain(blocks), False)):
        assert_safe(text, drawn)
        assert "[red]:bell:[/red]" in text


def test_an_encoding_without_a_letter_does_not_end_the_command() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_text("caf\u00e9 \ud800", stream)
    stream.seek(0)
    assert stream.read() == "caf\\xe9 \\ud800\n"


def test_errors_and_warnings_are_safe(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(HOSTILE)
    with printable_warnings():
        sys.stderr.write(warnings.formatwarning(HOSTILE, UserWarning, "f\x1bile.py", 1, ""))
    assert_safe(capsys.readouterr().err)


def test_progress_notes_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, terminal, dumb = io.StringIO(), Terminal(), Terminal()
    monkeypatch.setenv("TERM", "xterm")
    Progress(1, 1, stream=elsewhere).note(HOSTILE)
    Progress(1, 1, stream=terminal).note(HOSTILE)
    monkeypatch.setenv("TERM", "dumb")
    Progress(1, 1, stream=dumb).note(HOSTILE)
    assert elsewhere.getvalue() == dumb.getvalue() == f"{printable(HOSTILE)}\n"
    assert terminal.getvalue() == f"\r{printable(HOSTILE)}\x1b[K\n"


def test_verdicts_are_safe(tmp_path: Path) -> None:
    """A reason quotes errors, which quote file names."""
    verdict = Verdict(
        run_id="r",
        plan="p",
        finished=False,
        exit_code=4,
        reason=HOSTILE,
        n_rows=1,
        n_ok=0,
        n_error=1,
        n_spans=0,
        by_code={HOSTILE: 1},
        by_stage={"read": 1},
        n_shards=1,
        n_published=0,
        tables={"samples": {"files": 1, "rows": 1}},
    )
    text = plain(verdict_blocks(Folder(str(tmp_path / "a\x1b[2J")), verdict))
    assert_safe(text)
    assert re.search(r"^samples +1 +1$", text, flags=re.M)
    assert re.search(r"^read +1$", text, flags=re.M)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> dict[str, str]:
    """A run of hostile samples in hostile folders, a verdict with a hostile reason."""
    name = HOSTILE.replace("/", "")
    folder = tmp_path_factory.mktemp("terminal") / name
    write_input(folder / "input", **{name: [HOSTILE, "plain", HOSTILE]})
    planned = planned_run(config_for(folder))
    run(planned, Worker(planned.folder, response=f"In the {HOSTILE} hall."))
    _poison(Path(planned.folder.root) / "samples")
    config = folder / f"{name}.yaml"
    content = {
        "input": {"path": str(folder / "input")},
        "output": {"path": str(folder / "output")},
        "model": {"path": tiny_model},
    }
    config.write_text(json.dumps(content))
    samples = folder / f"{name}.json"
    question = [{"image": f"{name}.png"}, {"text": HOSTILE}]
    samples.write_text(
        json.dumps([{"id": HOSTILE, "question": question}, {"id": "b", "question": HOSTILE}])
    )
    broken = folder / "broken.json"
    broken.write_text(f"[{HOSTILE}")
    return {
        "folder": str(folder),
        "run": planned.folder.root,
        "config": str(config),
        "samples": str(samples),
        "broken": str(broken),
        "model": tiny_model,
        "hostile": HOSTILE,
    }


def _poison(samples: Path) -> None:
    """Put hostile text into every text column that inspect shows."""
    for path in samples.iterdir():
        table = pq.read_table(path)
        rows: list[dict[str, Any]] = table.to_pylist()
        for row in rows:
            row["notes"] = [HOSTILE]
            row["message"] = row["message"] and HOSTILE
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


COMMANDS = {
    "ingest": ["ingest", "{samples}", "{folder}/ingested", "--overwrite"],
    "ingest what is broken": ["ingest", "{broken}", "{folder}/none"],
    "validate": ["validate", "{config}"],
    "dry run": ["run", "{config}", "--dry-run"],
    "wrong config": ["run", "{config}", "curation.{hostile}=1"],
    "wrong value": ["validate", "{config}", "asr.engine={hostile}"],
    "curate": ["curate", "{run}", "{folder}/curated", "curation.gamma=1", "--workers", "1"],
    "curate without a run": ["curate", "{folder}/none", "{folder}/curated"],
    "inspect": ["inspect", "{folder}/output", "{hostile}"],
    "inspect nothing": ["inspect", "{run}", "none {hostile}"],
    "trace": ["trace", "{samples}", "--model", "{model}", "--output_path", "{folder}/out.json"],
    "trace to stdout": ["trace", "{samples}", "--model", "{model}", "--output_path", "-"],
    "usage": ["inspect", "{run}", "a", "--{hostile}"],
    "verbose": ["validate", "-v", "{config}", "input.path={folder}/none"],
}


# Those that show a hostile name or text, escaped, whatever else they print.
SHOWING = set(COMMANDS) - {"wrong config"}


def _words(name: str, hostile: dict[str, str]) -> list[str]:
    return [word.format(**hostile) for word in COMMANDS[name]]


@pytest.mark.parametrize("drawn", [False, True], ids=["elsewhere", "on a terminal"])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_verb_prints_a_control_character(
    name: str, drawn: bool, hostile: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for variable in ("NO_COLOR", "CI"):
        monkeypatch.delenv(variable, raising=False)
    out, err = (Terminal(), Terminal()) if drawn else (io.StringIO(), io.StringIO())
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with contextlib.suppress(SystemExit):
        main(_words(name, hostile))
    assert out.getvalue() or err.getvalue()
    assert ("Traceback" in err.getvalue()) == (name == "verbose")
    assert_safe(out.getvalue(), drawn)
    assert_safe(err.getvalue(), drawn)
    if name in SHOWING:
        assert r"\x1b[2J" in f"{out.getvalue()}{err.getvalue()}".replace("\\\\", "\\")


@pytest.mark.parametrize("name", ["inspect", "ingest what is broken", "curate without a run"])
def test_nor_does_the_program_on_a_real_terminal(name: str, hostile: dict[str, str]) -> None:
    text = _on_a_terminal([sys.executable, "-m", "pipeline", *_words(name, hostile)])
    assert r"\x1b[2J" in text
    assert_safe(text, drawn=True)


def _on_a_terminal(command: list[str]) -> str:
    """What the command prints where stdout and stderr are a terminal."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI")}
    parent, child = pty.openpty()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "100"},
    ):
        os.close(child)
        printed = bytearray()
        while True:
            try:
                data = os.read(parent, 65536)
            except OSError:  # so Linux says that the other end is closed
                break
            if not data:
                break
            printed += data
    os.close(parent)
    # The terminal's own line discipline turns newlines into CR LF.
    return printed.decode().replace("\r\n", "\n")
