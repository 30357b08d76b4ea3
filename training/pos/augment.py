"""Vary the layout and wording of training texts at random, to add forms that are rare in EWT.

EWT is web text of 2000 to 2010: no Markdown, few lists, few sentences that end in a number or a
letter ("The answer is B."). All chances are per sentence unless a comment gives another unit.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import replace

from .corpus import Piece, Sentence

MAX_SENTENCES = 12
LOWER_CHANCE = 0.15  # per text
LIST_CHANCE = 0.08  # per text
PARAGRAPH_BREAK_CHANCE = 0.5  # per paragraph
HEADING_CHANCE = 0.2  # per unpunctuated first line
BOLD_CHANCE = 0.03
BARE_ENDING_CHANCE = 0.04
INITIALS_CHANCE = 0.04
PAUSE_CHANCE = 0.03

BREAKS = ("\n", "\n\n")
HASHES = ("# ", "## ", "### ")
ENUMERATORS = ("{n}. ", "{n}) ", "- ", "* ", "• ")
ENDINGS = (*"123456789ABCD", "10", "12", "15", "20", "36", "2.5", "100", "2015", "2021", "B12")
INITIALS = (*(f"{letter}." for letter in "ABCDEFGHJKLMNPRSTW"), "J. R.", "M. C.", "A. B.")
PAUSES = ("...", "…")
TERMINALS = frozenset(".!?…")
CLOSERS = "\"'\u201d\u2019)]*"


def cut_at_random(document: list[Sentence], rng: random.Random) -> Iterator[list[Piece]]:
    """Cut a document into texts of 1 to MAX_SENTENCES sentences, varied in layout and case."""
    start = 0
    while start < len(document):
        end = start + rng.randint(1, MAX_SENTENCES)
        chunk = [varied(sentence, rng) for sentence in document[start:end]]
        if rng.random() < LOWER_CHANCE:
            chunk = [lower_cased(sentence) for sentence in chunk]
        yield as_list(chunk, rng) if rng.random() < LIST_CHANCE else as_prose(chunk, rng)
        start = end


def as_prose(chunk: list[Sentence], rng: random.Random) -> list[Piece]:
    """Join sentences with spaces, and with line breaks where a paragraph or a heading ends.

    A sentence without closing punctuation is always followed by a line break, like headings and
    list items in texts, so that the splitter does not learn to guess boundaries in mid-sentence.
    """
    pieces: list[Piece] = []
    separator = ""
    for sentence, after in zip(chunk, [*chunk[1:], None], strict=True):
        closed = is_closed(sentence)
        is_heading = separator != " " and not closed and rng.random() < HEADING_CHANCE
        marked = with_marker(sentence, rng.choice(HASHES)) if is_heading else sentence
        pieces.append(Piece(separator, marked))
        ends = after and after.opens_paragraph and rng.random() < PARAGRAPH_BREAK_CHANCE
        separator = rng.choice(BREAKS) if ends or not closed else " "
    return pieces


def as_list(chunk: list[Sentence], rng: random.Random) -> list[Piece]:
    """Set sentences as list items, one per line: numbered or not, with bold leads or not."""
    template = rng.choice(ENUMERATORS)
    first = rng.choice((1, 1, 1, 2, 5, 10))
    n_bold = rng.choice((0, 0, 1, 2, 3))
    pieces: list[Piece] = []
    for n, sentence in enumerate(chunk, start=first):
        item = with_bold_lead(sentence, n_bold) if n_bold else sentence
        pieces.append(Piece("\n" if pieces else "", with_marker(item, template.format(n=n))))
    return pieces


def is_closed(sentence: Sentence) -> bool:
    """Whether the text ends like a sentence, not counting closing quotes and brackets."""
    return sentence.text.rstrip(CLOSERS)[-1:] in TERMINALS


def varied(sentence: Sentence, rng: random.Random) -> Sentence:
    """Change some sentences at random in ways that keep their boundaries."""
    if rng.random() < BARE_ENDING_CHANCE:
        sentence = with_bare_ending(sentence, rng.choice(ENDINGS))
    if rng.random() < INITIALS_CHANCE:
        sentence = with_initials(sentence, rng.choice(INITIALS))
    if rng.random() < PAUSE_CHANCE:
        sentence = with_pause(sentence, rng.choice(PAUSES))
    if rng.random() < BOLD_CHANCE:
        sentence = with_bold_lead(sentence, rng.randint(1, 4))
    return sentence


def with_bare_ending(sentence: Sentence, ending: str) -> Sentence:
    """Replace a last noun with a number or a letter ("They are in group 2.").

    Without this, most full stops after a number or a letter belong to list markers and initials.
    The letter gets no tag.
    """
    if sentence.tags[-2:] != ("NOUN", "PUNCT") or sentence.words[-1] != ".":
        return sentence
    tail = f" {sentence.words[-2]}."
    if not sentence.text.endswith(tail):
        return sentence
    return replace(
        sentence,
        text=f"{sentence.text.removesuffix(tail)} {ending}.",
        words=(*sentence.words[:-2], ending, "."),
        tags=(*sentence.tags[:-2], "NUM" if ending[0].isdigit() else "", "PUNCT"),
    )


def with_initials(sentence: Sentence, initials: str) -> Sentence:
    """Put initials before the first proper noun ("A. Smith"): full stops that end no sentence."""
    if "PROPN" not in sentence.tags:
        return sentence
    i = sentence.tags.index("PROPN")
    before = sentence.text[: end_of(sentence, i)]
    after = sentence.text[len(before) :]
    if before and not after.startswith(" "):
        return sentence
    names = tuple(initials.split())
    return replace(
        sentence,
        text=f"{before} {initials} {after.lstrip()}".lstrip(),
        words=sentence.words[:i] + names + sentence.words[i:],
        tags=sentence.tags[:i] + ("PROPN",) * len(names) + sentence.tags[i:],
    )


def with_pause(sentence: Sentence, dots: str) -> Sentence:
    """Replace the first comma with dots if a word in small letters follows it."""
    found = re.search(r", (?=[a-z])", sentence.text)
    if not found or "," in sentence.text[: found.start()] or "," not in sentence.words:
        return sentence
    i = sentence.words.index(",")
    return replace(
        sentence,
        text=f"{sentence.text[: found.start()]}{dots}{sentence.text[found.start() + 1 :]}",
        words=(*sentence.words[:i], dots, *sentence.words[i + 1 :]),
    )


def with_marker(sentence: Sentence, marker: str) -> Sentence:
    """Put a marker before a sentence, split as spaCy's tokenizer does ("2. " into 2 and .)."""
    parts = tuple(re.findall(r"\d+|[^\d\s]", marker))
    return replace(
        sentence,
        text=marker + sentence.text,
        words=parts + sentence.words,
        tags=tuple("NUM" if part.isdigit() else "PUNCT" for part in parts) + sentence.tags,
    )


def with_bold_lead(sentence: Sentence, n_words: int) -> Sentence:
    """Set the first n_words in Markdown bold."""
    end = end_of(sentence, n_words)
    stars, tags = ("*", "*"), ("PUNCT", "PUNCT")
    return replace(
        sentence,
        text=f"**{sentence.text[:end]}**{sentence.text[end:]}",
        words=stars + sentence.words[:n_words] + stars + sentence.words[n_words:],
        tags=tags + sentence.tags[:n_words] + tags + sentence.tags[n_words:],
    )


def end_of(sentence: Sentence, n_words: int) -> int:
    """Return where in the text the first n_words end."""
    end = 0
    for word in sentence.words[:n_words]:
        end = sentence.text.index(word, end) + len(word)
    return end


def lower_cased(sentence: Sentence) -> Sentence:
    """Return the sentence in lower case.

    spacy.lower_case.v1 is not used: in spaCy 3.8 it drops the sentence starts of the texts that it
    changes, which would teach the splitter that lower-case text has no boundaries.
    """
    words = tuple(word.lower() for word in sentence.words)
    return replace(sentence, text=sentence.text.lower(), words=words)
