"""Printed text contains no character that acts on a terminal."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import unicodedata
from dataclasses import replace

import pytest

from omnitrace_core import MediaMissing, OmniTraceError, StoreCredentials, StoreUnavailable
from omnitrace_core.printable import (
    PrintableFormatter,
    json_printable,
    printable,
    printable_message,
)
from omnitrace_core.tracing.failures import as_sample_error
from tests.core.ready_samples import ready

# Clear the screen, set the title, C1's own escape, delete, a bidirectional override, a separator of
# lines, a lone surrogate, a tag.
HOSTILE = "\x1b[2J\x1b]0;t\x07\x9b31m\x7f\u202e\u2028\ud800\U000e0041"
ACTING = {"Cc", "Cs", "Zl", "Zp"}
DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_every_acting_character_is_escaped_and_every_letter_kept() -> None:
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        shown = printable(letter)
        if letter.isprintable():
            assert shown == letter
        acts = unicodedata.category(letter) in ACTING
        if acts or unicodedata.bidirectional(letter) in DIRECTIONS:
            assert shown.isascii()
            assert shown.isprintable()


def test_one_line_stays_one_line() -> None:
    assert printable("a\r\nb\tc") == r"a\r\nb\tc"
    assert printable(HOSTILE).isprintable()
    assert printable(ValueError("a\x1bb")) == r"a\x1bb"
    family = "\U0001f469\u200d\U0001f467"
    assert printable(family) == family


def test_lines_are_kept_where_they_are_wanted() -> None:
    assert printable("a\r\nb\tc\rd\x85", lines=True) == "a\nb\tc\\rd\\x85"


def test_no_line_of_a_message_looks_like_ours() -> None:
    forged = "a.png\nrun r1: done\n  indented already"
    assert printable_message(forged) == "a.png\n  run r1: done\n  indented already"


def test_json_keeps_its_content() -> None:
    text = json.dumps({"a": HOSTILE}, ensure_ascii=False, indent=1)
    shown = json_printable(text)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert json.loads(shown) == json.loads(text)


def test_records_and_their_tracebacks_are_safe() -> None:
    try:
        raise ValueError(f"first\nsecond {HOSTILE}")
    except ValueError:
        where = logging.LogRecord("a", logging.ERROR, "f.py", 1, "%s", (HOSTILE,), sys.exc_info())
    first, *others = PrintableFormatter("%(message)s").format(where).split("\n")
    assert first == printable(HOSTILE)
    assert any("second" in line for line in others)
    assert all(line.startswith("  ") and line.isprintable() for line in others)


@pytest.mark.parametrize(
    "error_class", [OmniTraceError, MediaMissing, StoreUnavailable, StoreCredentials]
)
def test_errors_are_safe_to_print_and_keep_their_message(
    error_class: type[OmniTraceError],
) -> None:
    raw = f"no/{HOSTILE}.png: no such file\nrun r1: done"
    error = error_class(raw)
    assert str(error) == printable_message(raw) == printable_message(str(error))
    assert error.message == raw
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), copied.message) == (error_class, raw)
    harmless = "part 0: \u732b.png: no such file; give a path\n  with two lines"
    assert str(error_class(harmless)) == error_class(harmless).message == harmless
    assert str(error_class()) == error_class().message == ""


def test_an_uncaught_error_is_safe_on_a_terminal() -> None:
    code = "from omnitrace_core import MediaMissing; raise MediaMissing('no/\\x1b[31m\\n.png')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 1
    assert rb"no/\x1b[31m" in done.stderr
    assert b"\x1b" not in done.stderr


def test_a_failed_sample_is_logged_safely_without_logging_set_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = ready(["Hello."])
    hostile = replace(made, sample=replace(made.sample, sample_id=HOSTILE))
    try:
        raise ValueError(f"bad kernel\n{HOSTILE}")
    except ValueError as error:
        found = as_sample_error(hostile, 3, error)
    assert found.code == "trace_error"
    (record,) = caplog.records
    first, *others = logging.Formatter("%(message)s").format(record).split("\n")
    assert first.endswith("(3 prompt tokens) failed")
    assert "Traceback" in others[0]
    assert all(line.isprintable() for line in (first, *others))
    assert all(line.startswith("  ") for line in others)


@pytest.mark.parametrize("module", ["stages", "stages.guards.row_guard"])
def test_a_worker_without_logging_set_up_is_safe(module: str) -> None:
    """Ray's workers import the stages and log by Python's handler of last resort."""
    code = f"import {module}, logging; logging.getLogger('any').warning('%s', 'a\\x1b[2J\\nb')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "a\\x1b[2J\n  b\n"
