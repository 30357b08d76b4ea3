"""Print for people: every line that a command prints goes through this module.

Text is made safe to print here (`omnitrace_core.printable`), so callers pass names and texts as
they are. On a terminal tables are drawn with Rich; in pipes and logs they are aligned text.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import NoReturn, TextIO, TypeAlias

from omnitrace_core.printable import printable, printable_message

WIDTH = 100  # characters of a table that is plain text
_GAP = "  "
_MIN_WIDTH = 8
_MAX_COUNT = 10**9


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under their columns' names; newlines in a cell are printed as escapes.

    title: a line above the table. right: names of the columns whose cells are flush right.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    right: frozenset[str] = frozenset()


Block: TypeAlias = str | Table


class SafeParser(argparse.ArgumentParser):
    """Prints what is wrong with the arguments safely: a glob may have put any file name there."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message to stderr, and end with exit code 2."""
        super().error(printable_message(message))


def count(text: str) -> int:
    """A number of things, given as an argument. Raises: ArgumentTypeError, ValueError."""
    number = int(text)
    if not 1 <= number <= _MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text[:20]} is not from 1 to {_MAX_COUNT:,}")
    return number


def print_text(text: str, stream: TextIO | None = None) -> None:
    """Print lines of text to `stream` (stdout), made safe, and flush them."""
    _write(f"{printable(text, lines=True)}\n", stream or sys.stdout)


def print_error(text: str) -> None:
    """Print a message to stderr, made safe; lines after its first are indented."""
    _write(f"{printable_message(text)}\n", sys.stderr)


def print_blocks(blocks: Iterable[Block], stream: TextIO | None = None) -> None:
    """Print texts and tables to `stream` (stdout), made safe."""
    stream = stream or sys.stdout
    if draws_tables(stream):
        _draw(blocks, stream)
    else:
        print_text(plain(blocks), stream)


def draws_tables(stream: TextIO) -> bool:
    """Whether tables are drawn: on a terminal that can, unless NO_COLOR or CI is set."""
    able = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return able and stream.isatty() and not (os.environ.get("NO_COLOR") or os.environ.get("CI"))


def plain(blocks: Iterable[Block]) -> str:
    """Texts and tables as lines of text without control characters."""
    texts = (
        printable(block, lines=True) if isinstance(block, str) else "\n".join(_plain_lines(block))
        for block in blocks
    )
    return "\n".join(texts)


def _plain_lines(table: Table) -> Iterator[str]:
    """The table's title, its head and its rows, at most WIDTH wide."""
    if table.title:
        yield from textwrap.wrap(printable(table.title), WIDTH)
    rows = [[printable(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = _widths(rows)
    for row in rows:
        wrapped = [
            textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)
        ]
        for lines in zip_longest(*wrapped, fillvalue=""):
            texts = [
                line.rjust(width) if name in table.right else line.ljust(width)
                for name, line, width in zip(table.columns, lines, widths, strict=True)
            ]
            yield _GAP.join(texts).rstrip()


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Widths of the columns: as wide as their longest cell, the widest cut until all fit."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = WIDTH - len(_GAP) * (len(widths) - 1)
    while sum(widths) > room and max(widths) > _MIN_WIDTH:
        widths[widths.index(max(widths))] -= 1
    return widths


def _draw(blocks: Iterable[Block], stream: TextIO) -> None:
    from rich import box, table
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    for block in blocks:
        if isinstance(block, str):
            # Long lines are left to the terminal, so that commands can be copied.
            console.print(Text(printable(block, lines=True)), soft_wrap=True)
            continue
        if block.title:
            console.print(Text(printable(block.title), style="bold"), soft_wrap=True)
        drawn = table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name in block.columns:
            drawn.add_column(
                Text(name), justify="right" if name in block.right else "left", overflow="fold"
            )
        for row in block.rows:
            drawn.add_row(*(Text(printable(cell)) for cell in row))
        console.print(drawn)


@contextmanager
def printable_warnings() -> Iterator[None]:
    """Make warnings safe that libraries raise within the block and Python prints to stderr."""
    original = warnings.formatwarning

    def format_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        text = original(message, category, filename, lineno, line)
        return f"{printable_message(text.rstrip())}\n"

    warnings.formatwarning = format_warning
    try:
        yield
    finally:
        warnings.formatwarning = original


def _write(text: str, stream: TextIO) -> None:
    # A terminal of an older encoding must not end the command at the first letter it lacks.
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
