# ruff: noqa: RUF001 (the punctuation of other scripts is what this module is about)
"""The words, parts of speech and sentences of a text, and an analyser by rule.

`analyse_by_rule` works for any language: sentences end at the terminators of any script, and every
word gets the same tag.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# The tag of every word in an analysis by rule; curation gives it the weight 1.
ANY_WORD = "ANY"
SPACE = "SPACE"
PUNCT = "PUNCT"

# Unspaced stops end a sentence wherever they stand. Spaced stops end one before white space that is
# followed by anything but a small letter, or directly before a letter without case ("走吧!我们").
# Closing quotes, brackets and emphasis marks belong to the sentence that they close.
_UNSPACED_STOPS = "。．｡！？؟۔।॥։።۔‼⁇⁈⁉"
_SPACED_STOPS = ".!?…"
_CLOSERS = re.escape("\"'”’»›)]}）】》」』*_")
_STOP = re.compile(
    rf"(?:[{_UNSPACED_STOPS}]|[{_SPACED_STOPS}]+)[{_UNSPACED_STOPS}{_SPACED_STOPS}{_CLOSERS}]*"
    r"(?:[ \u00a0\u202f]»(?!\w))?"
)
_NEXT_CHARACTER = re.compile(r"(\s*)[\"'“‘«‹(\[¿¡*_]*(\S)")
# "3. Oktober", "J. Dupont", "z. B.", "Dr. Müller": full stops that do not end a sentence.
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:\d{1,2}|[^\W\d_]|Dr|Prof|Mme|Mlle|Mr|Sra?|St)\.$")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class TaggedWord:
    """A word or mark, text[start:end], and its part of speech (Universal Dependencies)."""

    start: int
    end: int
    pos: str


@dataclass(frozen=True, slots=True)
class TextAnalysis:
    """The words and sentences of a text.

    words: in order, not overlapping, white space left out.
    sentence_starts: ascending offsets; a sentence ends where the next one starts.
    note: empty, or the reason why the text was analysed by rule.
    """

    words: tuple[TaggedWord, ...]
    sentence_starts: tuple[int, ...]
    note: str = ""


def analyse_by_rule(text: str, note: str) -> TextAnalysis:
    """Analyse a text of any language: words are tagged ANY_WORD, marks PUNCT.

    note: the reason, for `TextAnalysis.note`.
    """
    words = tuple(
        TaggedWord(
            match.start(),
            match.end(),
            PUNCT if unicodedata.category(match[0][0])[0] == "P" else ANY_WORD,
        )
        for match in _WORD_OR_MARK.finditer(text)
    )
    starts = [0, *(stop.end() for stop in _STOP.finditer(text) if _ends_sentence(text, stop))]
    return TextAnalysis(words, tuple(starts), note)


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    following = _NEXT_CHARACTER.match(text, stop.end())
    if following is None:
        return False
    if stop[0][0] in _UNSPACED_STOPS:
        return True
    space, character = following.groups()
    has_case = character.islower() or character.isupper()
    if not space:
        return character.isalpha() and not has_case and stop[0][0] != "…"
    if stop[0] == "." and _ABBREVIATION.search(text, max(0, stop.start() - 6), stop.end()):
        return False
    return not character.islower()
