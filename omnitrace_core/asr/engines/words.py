"""Words with their times: made orderly, punctuated, joined to sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from omnitrace_core.records import SpeechSegment, Word

# Scripts written without spaces between words, and their punctuation.
_UNSPACED = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]")
# Also in full width, and with quotes or brackets closed behind them.
_SENTENCE_END = re.compile(
    "[.?!\u2026\u3002\uff1f\uff01][\"'\u2019\u201d\u00bb)\\]\u300d\u300f\uff09]*$"
)
# As in the engine vad: longer than stops inside words, shorter than between sentences.
_PAUSE_S = 0.3
# The time step of Whisper, the coarsest of the engines.
_SHORTEST_S = 0.02


def ends_sentence(text: str) -> bool:
    """Whether a word or segment closes a sentence."""
    return _SENTENCE_END.search(text.rstrip()) is not None


def join_texts(texts: Iterable[str]) -> str:
    """One text; spaces go between words, and not into scripts that are written without them."""
    joined = ""
    for text in filter(None, (text.strip() for text in texts)):
        spaced = joined and not (_UNSPACED.match(joined[-1]) or _UNSPACED.match(text[0]))
        joined += f" {text}" if spaced else text
    return joined


def tidy_words(words: Iterable[Word], low_s: float, high_s: float) -> list[Word]:
    """Words with a text, in order of time, within [low_s, high_s], none of them without length.

    Models make words of no length, let the first begin before its sound, and step back a little
    where two of their windows meet.
    """
    tidy: list[Word] = []
    for word in words:
        text = word.text.strip()
        if not text:
            continue
        before = tidy[-1].end_s if tidy else low_s
        start_s = min(max(word.start_s, before), high_s)
        end_s = min(max(word.end_s, start_s + _SHORTEST_S), high_s)
        if end_s - start_s >= _SHORTEST_S / 2:
            tidy.append(Word(text, start_s, end_s))
        elif tidy:
            # There is no time left for it: it is heard together with the word before.
            tidy[-1] = replace(tidy[-1], text=join_texts((tidy[-1].text, text)))
    return tidy


def sentences(words: Sequence[Word]) -> tuple[SpeechSegment, ...]:
    """Segments of tidy words: up to the end of each sentence, or to a pause of 0.3 s where no word
    is punctuated."""
    punctuated = any(ends_sentence(word.text) for word in words)
    groups: list[list[Word]] = []
    for index, word in enumerate(words):
        if index == 0 or _parts(words[index - 1], word, punctuated):
            groups.append([])
        groups[-1].append(word)
    return tuple(segment_of(group) for group in groups)


def _parts(before: Word, after: Word, punctuated: bool) -> bool:
    return ends_sentence(before.text) if punctuated else after.start_s - before.end_s >= _PAUSE_S


def segment_of(words: Sequence[Word]) -> SpeechSegment:
    """All of some words, at least one, as a segment."""
    text = join_texts(word.text for word in words)
    return SpeechSegment(words[0].start_s, words[-1].end_s, text, tuple(words))


def spread(texts: Sequence[str], start_s: float, end_s: float) -> list[Word]:
    """Words over a stretch of time by their lengths, for when nothing is known of their times."""
    n_chars = sum(len(text) for text in texts)
    words: list[Word] = []
    at = 0
    for text in texts:
        edges = [start_s + (end_s - start_s) * n / n_chars for n in (at, at + len(text))]
        words.append(Word(text, edges[0], edges[1]))
        at += len(text)
    return words


def punctuate(texts: Sequence[str], punctuated: str) -> list[str] | None:
    """Words as a punctuated version of their text has them; None if it has other words.

    Punctuation goes to the word before it, upper and lower case are those of `punctuated`.
    """
    found: list[str] = []
    at = 0
    for text in texts:
        while (piece := punctuated[at : at + len(text)]).casefold() != text.casefold():
            if not piece or piece[0].isalnum():
                return None
            if found:
                found[-1] += piece[0].strip()
            at += 1
        found.append(piece)
        at += len(text)
    rest = punctuated[at:].strip()
    if not found or any(character.isalnum() for character in rest):
        return None
    found[-1] += rest
    return found
