"""Put words with their times in order, punctuate them, and join them to sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from omnitrace_core.records import SpeechSegment, Word

# Scripts that are written without spaces between words, and their punctuation.
_UNSPACED = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]")
# ASCII and full-width, with any closing quotes and brackets after them.
_SENTENCE_END = re.compile(
    "[.?!\u2026\u3002\uff1f\uff01][\"'\u2019\u201d\u00bb)\\]\u300d\u300f\uff09]*$"
)
# As in the engine vad: longer than stops inside words, shorter than between sentences.
_PAUSE_S = 0.3
# The time step of Whisper, the coarsest of all engines.
_SHORTEST_WORD_S = 0.02


def ends_sentence(text: str) -> bool:
    """Whether a sentence ends with this word or segment."""
    return _SENTENCE_END.search(text.rstrip()) is not None


def join_texts(texts: Iterable[str]) -> str:
    """Join texts by spaces, except where scripts are written without spaces between words."""
    joined = ""
    for text in filter(None, (text.strip() for text in texts)):
        spaced = joined and not (_UNSPACED.match(joined[-1]) or _UNSPACED.match(text[0]))
        joined += f" {text}" if spaced else text
    return joined


def tidy_words(words: Iterable[Word], low_s: float, high_s: float) -> list[Word]:
    """Drop empty words and correct times, so that words follow each other within [low_s, high_s].

    Models return words of no length, words that start before the sound, and words that start before
    the previous word ends, where two of their windows meet.
    """
    tidy: list[Word] = []
    for word in words:
        text = word.text.strip()
        if not text:
            continue
        earliest_s = tidy[-1].end_s if tidy else low_s
        start_s = min(max(word.start_s, earliest_s), high_s)
        end_s = min(max(word.end_s, start_s + _SHORTEST_WORD_S), high_s)
        if end_s - start_s >= _SHORTEST_WORD_S / 2:
            tidy.append(Word(text, start_s, end_s))
        elif tidy:
            # No time is left before the end of the sound: the text joins the previous word.
            tidy[-1] = replace(tidy[-1], text=join_texts((tidy[-1].text, text)))
    return tidy


def split_sentences(words: Sequence[Word]) -> tuple[SpeechSegment, ...]:
    """One segment per sentence, or between pauses of 0.3 s if no word ends a sentence.

    words: as returned by `tidy_words`.
    """
    punctuated = any(ends_sentence(word.text) for word in words)
    groups: list[list[Word]] = []
    for index, word in enumerate(words):
        if index == 0 or _ends_between(words[index - 1], word, punctuated):
            groups.append([])
        groups[-1].append(word)
    return tuple(_segment_of(group) for group in groups)


def _ends_between(left: Word, right: Word, punctuated: bool) -> bool:
    return ends_sentence(left.text) if punctuated else right.start_s - left.end_s >= _PAUSE_S


def _segment_of(words: Sequence[Word]) -> SpeechSegment:
    text = join_texts(word.text for word in words)
    return SpeechSegment(words[0].start_s, words[-1].end_s, text, tuple(words))


def estimate_times(texts: Sequence[str], start_s: float, end_s: float) -> list[Word]:
    """Words of unknown times, spread over [start_s, end_s] in proportion to their lengths."""
    n_chars = sum(len(text) for text in texts)
    words: list[Word] = []
    before = 0
    for text in texts:
        edges_s = [start_s + (end_s - start_s) * n / n_chars for n in (before, before + len(text))]
        words.append(Word(text, edges_s[0], edges_s[1]))
        before += len(text)
    return words


def copy_punctuation(texts: Sequence[str], punctuated: str) -> list[str] | None:
    """Words with the punctuation and the case that they have in a punctuated text.

    texts: words without punctuation. punctuated: the same words in one text. Punctuation joins the
    word before it. Returns None if `punctuated` has other words.
    """
    found: list[str] = []
    position = 0
    for text in texts:
        end = position + len(text)
        while (candidate := punctuated[position:end]).casefold() != text.casefold():
            if not candidate or candidate[0].isalnum():
                return None
            if found:
                found[-1] += candidate[0].strip()
            position, end = position + 1, end + 1
        found.append(candidate)
        position = end
    rest = punctuated[position:].strip()
    if not found or any(character.isalnum() for character in rest):
        return None
    found[-1] += rest
    return found
