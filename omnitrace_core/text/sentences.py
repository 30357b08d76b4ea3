"""Cut a text into sentences, and an input text into its units: sentences and answer options.

All functions return ranges [start, end) in order, without white space at their edges. Together the
ranges hold every character that is not white space exactly once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from omnitrace_core.text.analysis import TextAnalysis
from omnitrace_core.text.language import Language

Range = tuple[int, int]

_BREAKS = r"\n\r\v\f\x85\u2028\u2029"
_NEWLINE = re.compile(rf"\r\n|[{_BREAKS}]")
# A list marker alone: "-", "*", bullets, dashes; "##"; "1.", "12)", "(3)", "a.", "**b.**".
# Other marks may follow: "1. **", "- [ ]".
_LIST_MARKER = re.compile(
    r"(?:[-*+\u2022\u2023\u25aa\u25e6\u00b7\u2013\u2014]|#{1,6}"
    r"|[*_]*\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{2,5})[.):][*_]*)"
    r"(?:\s+[^\w\s]+)*"
)

# Three ways to letter options, each followed by the option's text on the same line.
_CLAUSE_MARKS = r".?!:;\u3002\uff1f\uff01\uff1a\uff1b"  # ASCII and full-width
_OPTION_STYLES = tuple(
    re.compile(rf"(?<![^\s{_CLAUSE_MARKS}]){letter}(?={gap}[^\s,.;:)])")
    for letter, gap in (
        (r"\(([A-Z])\)", rf"[^\S{_BREAKS}]*"),
        (r"([A-Z])\)", rf"[^\S{_BREAKS}]*"),
        (r"([A-Z])\.", rf"[^\S{_BREAKS}]+"),
    )
)
_OPENS_LINE = re.compile(rf"(?:^|[{_BREAKS}])\s*$")
_OPENS_CLAUSE = re.compile(rf"(?:^|[{_BREAKS}{_CLAUSE_MARKS}])\s*$")
_ASKS = re.compile(r"[?:\uff1f\uff1a]\s*$")
_LISTS_NAMES = re.compile(r"(?:[,&]|\b(?:and|or|by))\s*$")
_LOOK_BACK = 80  # characters before an option's letter that are checked for what precedes it


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A unit of an input text: text[start:end]."""

    start: int
    end: int
    kind: Literal["sentence", "option", "text_part"]


def whole_text(text: str) -> list[TextSpan]:
    """The whole of an input text as one unit; a text of white space only has no units."""
    return [TextSpan(start, end, "text_part") for start, end in trim(text, 0, len(text))]


def text_units(text: str, language: Language) -> list[TextSpan]:
    """The units of an input text: answer options, and sentences around them.

    A text of white space only has no units.
    """
    if not text.strip():
        return []
    starts = language.analyse(text).sentence_starts
    units: list[TextSpan] = []
    done = 0
    for option_start, option_end in [*find_options(text), (len(text), len(text))]:
        between = _cut(text, done, option_start, starts)
        units += [TextSpan(start, end, "sentence") for start, end in between]
        if option_start < option_end:
            units.append(TextSpan(option_start, option_end, "option"))
        done = option_end
    return units


def split_sentences(text: str, analysis: TextAnalysis) -> list[Range]:
    """The sentences of `text`, also split at newlines; a list marker alone joins what follows."""
    return _cut(text, 0, len(text), analysis.sentence_starts)


def find_options(text: str) -> list[Range]:
    """The options of a multiple-choice question: `A.`, `(A)` or `A)`, then B, and so on.

    Letters at line starts are preferred. If there are none, letters within a line count if the
    first one opens a clause ("Which one? (A) this (B) that"). There must be at least two letters,
    and the first must be A, so that initials ("A. Smith") and numerals ("I.") are not taken for
    options. An option ends at the end of its line, or where the next option begins.
    """
    for style in _OPTION_STYLES:
        letters = list(style.finditer(text))
        lines = [letter for letter in letters if _follows(_OPENS_LINE, text, letter)]
        runs = _lettered_runs(lines) or _inline_runs(text, letters)
        if runs:
            return [option for run in runs for option in _option_ranges(text, run)]
    return []


def _lettered_runs(letters: Iterable[re.Match[str]]) -> list[list[re.Match[str]]]:
    """Runs A, B, ... of at least two letters; letters out of sequence are skipped."""
    runs: list[list[re.Match[str]]] = []
    for letter in letters:
        if letter[1] == "A":
            runs.append([letter])
        elif runs and ord(letter[1]) == ord(runs[-1][-1][1]) + 1:
            runs[-1].append(letter)
    return [run for run in runs if len(run) >= 2]


def _inline_runs(text: str, letters: Iterable[re.Match[str]]) -> list[list[re.Match[str]]]:
    runs = _lettered_runs(
        letter
        for letter in letters
        if (
            _follows(_OPENS_CLAUSE, text, letter)
            if letter[1] == "A"
            else letter[0][-1] == ")" or not _follows(_LISTS_NAMES, text, letter)
        )
    )
    # "A. Smith met B. Jones": two letters with full stops are initials unless a question precedes.
    return [
        run for run in runs if run[0][0][-1] != "." or len(run) > 2 or _follows(_ASKS, text, run[0])
    ]


def _follows(pattern: re.Pattern[str], text: str, letter: re.Match[str]) -> bool:
    before = text[max(0, letter.start() - _LOOK_BACK) : letter.start()]
    return pattern.search(before) is not None


def _option_ranges(text: str, run: Sequence[re.Match[str]]) -> list[Range]:
    ranges: list[Range] = []
    for letter, following in zip(run, [*run[1:], None], strict=True):
        newline = _NEWLINE.search(text, letter.end())
        end = newline.start() if newline else len(text)
        if following is not None:
            end = min(end, following.start())
        ranges += trim(text, letter.start(), end)
    return ranges


def _cut(text: str, start: int, end: int, sentence_starts: Iterable[int]) -> list[Range]:
    """Cut text[start:end] at line and sentence starts, then join pieces that belong together."""
    line_starts = (newline.end() for newline in _NEWLINE.finditer(text, start, end))
    inside = {cut for cut in (*line_starts, *sentence_starts) if start < cut < end}
    ranges: list[Range] = []
    for left, right in pairwise(sorted({start, end} | inside)):
        for piece in trim(text, left, right):
            if ranges and _belong_together(text, ranges[-1], piece):
                ranges[-1] = (ranges[-1][0], piece[1])
            else:
                ranges.append(piece)
    return ranges


def _belong_together(text: str, left: Range, right: Range) -> bool:
    """Whether `right` continues `left`.

    It does after a list marker alone, also on the next line; and on the same line if one of them
    has no letters or digits (a closing quote, an emoji, a single bracket).
    """
    newlines = len(_NEWLINE.findall(text, left[1], right[0]))
    if _LIST_MARKER.fullmatch(text, *left):
        return newlines <= 1
    return newlines == 0 and not (_has_word(text, left) and _has_word(text, right))


def _has_word(text: str, part: Range) -> bool:
    return any(map(str.isalnum, text[slice(*part)]))


def trim(text: str, start: int, end: int) -> list[Range]:
    """[start, end) without white space at its edges: a list of one range, or of none."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    length = len(piece.strip())
    return [(start, start + length)] if length else []
