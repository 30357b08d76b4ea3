"""Print for people: every line that a command prints goes through this module.

Text is made safe to print here (`omnitrace_core.printable`), so callers pass names and texts as
they are.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from omnitrace_core.printable import printable, printable_message


def say(text: str, stream: TextIO | None = None) -> None:
    """Print lines of text to `stream` (stdout), made safe, and flush them."""
    _write(f"{printable(text, lines=True)}\n", stream or sys.stdout)


def say_error(text: str) -> None:
    """Print a message to stderr, made safe; lines after its first are indented."""
    _write(f"{printable_message(text)}\n", sys.stderr)


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
