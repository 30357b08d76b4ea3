"""Read records from JSON text of any length, one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO, cast

from omnitrace_core.errors import InputSchemaError

READ_CHARS = 1 << 16  # of one read, at least
# A JSON error this close to the end of the text read so far may be caused by text not yet read: no
# literal or escape is longer.
_TAIL_CHARS = 32
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class ParsedRecord:
    """One parsed record. where: file and line or row, for messages."""

    value: object
    where: str


def not_json(where: str, cause: object) -> InputSchemaError:
    """The error for text that is not JSON. where: file and line."""
    return InputSchemaError(f"{where}: not valid JSON ({cause}); correct the file there")


class JsonScanner:
    """Reads JSON values from a text stream and holds little more than the current value."""

    def __init__(self, stream: TextIO, url: str) -> None:
        self._stream = stream
        self._url = url
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._position = 0
        self._line = 1
        self._ended = False

    def list_items(self) -> Iterator[ParsedRecord]:
        """The items of the list that starts here, up to the end of the stream."""
        self._advance(self._position + 1)
        while self.peek() != "]":
            yield self.value()
            if self.peek() == ",":
                self._advance(self._position + 1)
            elif self.peek() != "]":
                raise not_json(self._where(), "expected a comma or the end of the list")
        self._advance(self._position + 1)
        if self.peek():
            raise not_json(self._where(), "more text after the end of the list")

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            self._advance(cast(re.Match[str], _SPACE.match(self._text, self._position)).end())
            if self._position < len(self._text) or not self._read_more():
                return self._text[self._position : self._position + 1]

    def value(self) -> ParsedRecord:
        """The next value, with the line it starts on."""
        self.peek()
        where = self._where()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as exc:
                stop = exc.pos - self._position
                if self._is_final(exc) or not self._read_more():
                    self._advance(self._position + stop)
                    raise not_json(self._where(), exc.msg) from exc
            except (ValueError, RecursionError) as exc:  # a number too long, or nesting too deep
                raise not_json(where, exc) from exc
            else:
                size = end - self._position
                # A number that ends with the text read so far may have more digits.
                if end < len(self._text) or not self._read_more():
                    self._advance(self._position + size)
                    return ParsedRecord(value, where)

    def _is_final(self, exc: json.JSONDecodeError) -> bool:
        """Whether more text cannot repair the error, so that the rest need not be read."""
        open_string = exc.msg.startswith("Unterminated string")
        return not open_string and exc.pos < len(self._text.rstrip()) - _TAIL_CHARS

    def _read_more(self) -> bool:
        """Drop the text before the current position, and read more; False at the end of the stream.

        Each read doubles the text held, so that a long value takes linear time.
        """
        if not self._ended:
            self._text = self._text[self._position :]
            self._position = 0
            try:
                more = self._stream.read(max(READ_CHARS, len(self._text)))
            except UnicodeDecodeError as exc:
                raise not_json(f"{self._where()} or later", exc) from exc
            self._text += more
            self._ended = not more
        return not self._ended

    def _advance(self, position: int) -> None:
        self._line += self._text.count("\n", self._position, position)
        self._position = position

    def _where(self) -> str:
        return f"{self._url}, line {self._line}"
