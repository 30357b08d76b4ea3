"""Show a result as text: at most 23 lines of at most 96 columns, safe for a terminal."""

from __future__ import annotations

import shutil
import unicodedata

from omnitrace_core.display.facts import (
    ShownResult,
    count,
    facts_of,
    notes_of,
    outcome_of,
    place_of,
    words_of,
)
from omnitrace_core.printable import printable
from omnitrace_core.records import Attribution, Source

# A terminal of 24 rows also has room for the next prompt.
MAX_LINES = 23
MAX_COLUMNS = 96
# In a narrower terminal the lines wrap.
MIN_COLUMNS = 60
_MIN_WORDS_COLUMNS = 30
_SOURCES_PER_SPAN = 3
_NOTES = 2
_NAME_COLUMNS = 40


def result_line(result: ShownResult) -> str:
    """One short line, for `repr`."""
    name = fit_columns(result.sample.sample_id, _NAME_COLUMNS)
    sizes = ", ".join(
        (
            count(len(result.trace.token_ids), "token"),
            count(len(result.spans), "span"),
            count(len(result.units), "source unit"),
        )
    )
    return f"TraceResult({name!r}, {sizes})"


def result_text(result: ShownResult) -> str:
    """One screen, for `print`: what was traced, the response, its spans with their best sources.

    Texts too long for their line are clipped, with the number of characters left out; so are spans,
    sources and notes.
    """
    columns = _screen_columns()
    head = [
        fit_columns(f"sample {result.sample.sample_id}", columns),
        fit_columns(" | ".join(facts_of(result)), columns),
        "response: " + fit_columns(result.trace.response, columns - 10),
    ]
    notes = _notes(notes_of(result), columns)
    room = MAX_LINES - len(head) - len(notes)
    return "\n".join([*head, *_spans(result.spans, room, columns), *notes])


def _screen_columns() -> int:
    """Columns of the terminal within our limits; without a terminal, the largest."""
    terminal = shutil.get_terminal_size((MAX_COLUMNS, MAX_LINES + 1)).columns
    return max(MIN_COLUMNS, min(MAX_COLUMNS, terminal))


def fit_columns(text: str, columns: int) -> str:
    """The text in one line of at most `columns` terminal columns, safe to print.

    A shortened text ends in `... +N characters`: so many are left out.
    """
    line = " ".join(text.split())
    if _fitting(line, columns) == len(line):
        return printable(line)
    n_shown = _fitting(line, columns - len(f" ... +{count(len(line), 'character')}"))
    return f"{printable(line[:n_shown])} ... +{count(len(line) - n_shown, 'character')}"


def _fitting(line: str, columns: int) -> int:
    """How many leading characters fit: wide ones take two columns, combining ones none, escaped
    ones several.

    At most two characters per column are counted, so that accents cannot add up without limit.
    """
    width = 0
    for index, character in enumerate(line[: 2 * columns + 1]):
        width += sum(_columns(shown) for shown in printable(character))
        if width > columns or index == 2 * columns:
            return index
    return len(line)


def _columns(character: str) -> int:
    """Terminal columns of a character: 2 if East Asian wide, 0 if combining, else 1."""
    if unicodedata.combining(character) or character in "\u200c\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _spans(spans: tuple[Attribution, ...], room: int, columns: int) -> list[str]:
    """As many spans as there is room for, from the first; each with its sources."""
    lines: list[str] = []
    for number, item in enumerate(spans):
        block = _span(item, columns)
        is_last = number + 1 == len(spans)
        if len(lines) + len(block) + (not is_last) > room:
            return [*lines, f"... {count(len(spans) - number, 'more span')}"]
        lines += block
    return lines


def _span(item: Attribution, columns: int) -> list[str]:
    left_out = len(item.sources) - _SOURCES_PER_SPAN
    head = f"[{item.span.index}] {outcome_of(item)}"
    if left_out > 0:
        head += f", {count(left_out, 'more source')}"
    head += ": "
    lines = [head + fit_columns(item.text, columns - len(head))]
    return lines + [_source(source, columns) for source in item.sources[:_SOURCES_PER_SPAN]]


def _source(source: Source, columns: int) -> str:
    line = f"    {source.mass:.2f}  {place_of(source.unit)}"
    words = words_of(source.unit)
    room = columns - len(line) - 2
    return f"{line}  {fit_columns(words, room)}" if words and room >= _MIN_WORDS_COLUMNS else line


def _notes(notes: tuple[str, ...], columns: int) -> list[str]:
    lines = ["note: " + fit_columns(note, columns - 6) for note in notes[:_NOTES]]
    if len(notes) > _NOTES:
        lines.append(f"... {count(len(notes) - _NOTES, 'more note')}")
    return lines
