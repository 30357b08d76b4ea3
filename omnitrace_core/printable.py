"""Make text safe to print: characters that act on a terminal are written as escapes.

Everything that comes from samples, addresses, file names and libraries goes through `printable`
before it reaches a terminal or a log. Otherwise an escape sequence in a sample could clear the
screen, retitle the window or paste a command, and a bidirectional override could show text that
reads differently from what it is.
"""

from __future__ import annotations

import logging
import re
import textwrap
import traceback
from typing import Any

from omnitrace_core.addresses import scrub

# Tab and newline have a separate set, because `printable(text, lines=True)` keeps them.
_LAYOUT = r"\t\n"
_ACTING = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0, DEL, C1
    r"\xad\u180e\u200b\u2060-\u2064\ufeff\ufff9-\ufffb"  # invisible
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # change the direction of writing
    r"\u2028\u2029"  # separators of lines and paragraphs
    r"\ud800-\udfff"  # lone surrogates, which no stream can encode
    r"\U000e0000-\U000e007f"  # tags, which can hide whole sentences
)
_IN_A_LINE = re.compile(f"[{_LAYOUT}{_ACTING}]")
_IN_LINES = re.compile(f"[{_ACTING}]")
_UNINDENTED = re.compile(r"\n(?! )")


def printable(text: object, *, lines: bool = False) -> str:
    r"""The text with each character that acts on a terminal as an escape, such as `\x1b`.

    lines: keep line breaks and tabs. Without it the result is one line.

    Joiners (U+200C, U+200D) are kept: emoji and several scripts need them.
    """
    if not lines:
        return _IN_A_LINE.sub(_escaped, str(text))
    return _IN_LINES.sub(_escaped, str(text).replace("\r\n", "\n"))


def printable_message(text: object) -> str:
    """A message of one or more lines, safe to print; lines after the first are indented.

    So a newline inside a file name or a sample's id cannot start a line that looks like ours.
    """
    return _UNINDENTED.sub("\n  ", printable(text, lines=True))


def printable_traceback(error: BaseException) -> str:
    """The traceback of an exception, safe to print and indented as a whole.

    A log record with `exc_info` is only safe with `PrintableFormatter`, which a script may lack.
    """
    text = "".join(traceback.format_exception(error)).rstrip()
    return textwrap.indent(printable(text, lines=True), "  ")


def json_printable(text: str) -> str:
    r"""A JSON document with the same content that is safe to print.

    JSON itself escapes C0 inside of strings; this adds the others, as `\u009b`.
    """
    return _IN_LINES.sub(_json_escaped, text)


class PrintableFormatter(logging.Formatter):
    """Formats log records, tracebacks included, as `printable_message` does, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, ready for the terminal."""
        return printable_message(scrub(super().format(record)))

    def formatException(self, ei: Any) -> str:
        """The traceback, indented as a whole."""
        return textwrap.indent(super().formatException(ei), "  ")


def make_last_resort_printable() -> None:
    """Make records safe in a process without logging set up, such as a worker of Ray.

    There Python writes warnings and errors to stderr by its handler of last resort.
    """
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PrintableFormatter("%(message)s"))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode("ascii")


def _json_escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[k : k + 2].hex()}" for k in range(0, len(units), 2))
