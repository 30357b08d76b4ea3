"""A result as text: what it says, that it fits one screen, and that a terminal is safe."""

from __future__ import annotations

import unicodedata

import pytest

from omnitrace_core.display.plain import MAX_COLUMNS, MAX_LINES, MIN_COLUMNS, fit_columns
from tests.core.display.result_samples import made_result

# Clears the screen, sets the title, C1, reverses what follows, a lone surrogate, a tag character.
HOSTILE = "\x1b[2J\x1b]0;title\x07 \x9b1m \u202egnp.exe \ud800 \U000e0041 \r\n\0"


def columns(line: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line)


def test_a_small_result_is_shown_whole() -> None:
    assert str(made_result(n_sources=3, notes=("part 1: mono",))).splitlines() == [
        "sample lamp",
        "2 spans | 3 source units | 1 token | ended by the model",
        "response: The lamp is red. It stands in the hall.",
        "[0] supported 0.42: The lamp is red.",
        "    0.50  text part 0  The lamp is red.",
        "    0.25  audio part 1, 1.50-3.25 s  it stands there",
        "    0.17  image part 2, box [0, 0, 120, 80]",
        "[1] supported 0.42: It stands in the hall.",
        "    0.50  text part 0  The lamp is red.",
        "    0.25  audio part 1, 1.50-3.25 s  it stands there",
        "    0.17  image part 2, box [0, 0, 120, 80]",
        "note: part 1: mono",
    ]


@pytest.mark.parametrize("n_spans", [0, 1, 4, 5, 6, 200])
@pytest.mark.parametrize("n_sources", [0, 1, 3, 40])
@pytest.mark.parametrize("n_notes", [0, 2, 9])
@pytest.mark.parametrize("terminal", [80, 200])
def test_it_fits_one_screen(
    n_spans: int, n_sources: int, n_notes: int, terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(terminal))
    result = made_result(
        sample_id="long/" * 100,
        span_texts=("A long sentence goes on. " * 30,) * n_spans,
        unit_text="猫が好き。" * 200,
        n_sources=n_sources,
        notes=("something to know. " * 20,) * n_notes,
    )
    lines = str(result).splitlines()
    assert len(lines) <= MAX_LINES < 24
    assert max(columns(line) for line in lines) <= min(terminal, MAX_COLUMNS) <= 100
    shown = sum(line.startswith("[") for line in lines)
    assert shown >= min(n_spans, 3)
    assert ("more span" in str(result)) == (shown < n_spans)
    assert ("more source" in str(result)) == (n_sources > 3 and n_spans > 0)
    assert ("more note" in str(result)) == (n_notes > 2)


@pytest.mark.parametrize(
    ("terminal", "width"), [("20", MIN_COLUMNS), ("72", 72), ("300", MAX_COLUMNS)]
)
def test_lines_are_as_wide_as_the_terminal_within_limits(
    terminal: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", terminal)
    result = made_result(span_texts=("x" * 500,), unit_text="x" * 500, n_sources=3)
    assert max(len(line) for line in str(result).splitlines()) == width


def test_what_is_left_out_is_counted() -> None:
    assert fit_columns("short", 40) == "short"
    assert fit_columns("many  white\n\tspaces", 40) == "many white spaces"
    assert fit_columns("x" * 1_000, 40) == "x" * 18 + " ... +982 characters"
    assert fit_columns("x" * 40, 40) == "x" * 40
    assert fit_columns("猫" * 100, 40) == "猫" * 10 + " ... +90 characters"


def test_accents_without_end_are_clipped() -> None:
    assert len(fit_columns("a" + "\u0301" * 100_000, 40)) < 100


def test_control_characters_never_reach_the_terminal() -> None:
    result = made_result(
        sample_id=HOSTILE,
        span_texts=(HOSTILE,),
        unit_text=HOSTILE,
        transcript=HOSTILE,
        uri=HOSTILE,
        n_sources=3,
        notes=(HOSTILE,),
    )
    for shown in (str(result), repr(result)):
        shown.encode()
        acting = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs")}
        assert acting <= {"\n"}
        assert r"\x1b" in shown
    assert len(str(result).splitlines()) == 8


def test_repr_is_one_short_line() -> None:
    assert repr(made_result()) == "TraceResult('lamp', 1 token, 2 spans, 3 source units)"
    long = repr(made_result(sample_id="x" * 10_000, span_texts=("word " * 1_000,) * 9))
    assert len(long) <= MAX_COLUMNS
    assert "\n" not in long
