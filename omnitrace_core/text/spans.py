"""Cutting a response into spans, and giving each model token a span and a part of speech.

Model tokens and words do not line up: a token may hold a space and a word, half a word, a full stop
with the newline behind it, or some of a character's bytes. One rule (`owners`) serves spans and
parts of speech alike: a token belongs to what holds most of its characters, white space aside, and
ties go to the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from omnitrace_core.options import SpanOptions
from omnitrace_core.records import Segmentation, Span
from omnitrace_core.text.language import SPACE, TaggedWord, load_language
from omnitrace_core.text.sentences import Range, split_sentences, trim

NOBODY = -1

_VERBS = frozenset({"VERB", "AUX"})
_SEMICOLONS = frozenset(";\uff1b")  # ASCII and full-width


class Segmenter:
    """Cuts responses into sentences or clauses, with a part-of-speech tag per model token."""

    def __init__(self, options: SpanOptions) -> None:
        """Load the pipeline. Raises: ConfigError if it cannot be loaded."""
        self.level = options.level
        self.language = load_language(options.pipeline)

    def read_ahead(self, responses: Iterable[str]) -> None:
        """Read responses together, which `segment` is given next; that is faster."""
        self.language.read_ahead(text for text in responses if text.strip())

    def segment(self, response: str, char_spans: Sequence[tuple[int, int]]) -> Segmentation:
        """Spans of `response`, and a part of speech for each of the n_gen tokens.

        char_spans: [start, end) of each token in the response, in order; empty for a token that
        completes no character, which then belongs where it stands.

        Every span has at least one token and token ranges do not overlap. A token of white space
        between two spans belongs to neither; inside a span it is part of it, tagged SPACE.
        """
        if not response.strip():
            return Segmentation((), (SPACE,) * len(char_spans))
        reading = self.language.read(response)
        ranges = split_sentences(response, reading)
        if self.level == "clause":
            ranges = [part for whole in ranges for part in clauses(response, whole, reading.words)]
        words = [(word.start, word.end) for word in reading.words]
        pos = tuple(
            SPACE if word == NOBODY else reading.words[word].pos
            for word in owners(response, char_spans, words)
        )
        spans = _with_tokens(response, ranges, owners(response, char_spans, ranges))
        return Segmentation(spans, pos, (reading.note,) if reading.note else ())


def owners(text: str, tokens: Sequence[Range], ranges: Sequence[Range]) -> list[int]:
    """For each token the index of the range that holds most of its characters, or NOBODY.

    tokens: [start, end) in text, an empty one counts as the character it stands before.
    ranges: [start, end) in text, in order, not overlapping. White space belongs to nobody.
    """
    owner_of = [NOBODY] * len(text)
    for index, (start, end) in enumerate(ranges):
        for position in range(start, end):
            if not text[position].isspace():
                owner_of[position] = index
    return [_most_frequent(owner_of[start : max(end, start + 1)]) for start, end in tokens]


def clauses(text: str, sentence: Range, words: Sequence[TaggedWord]) -> list[Range]:
    """Split a sentence before coordinators and behind semicolons that have a verb on both sides.

    Every clause has a verb of its own: a coordinator between nouns, or one whose left side was
    already cut down to a verbless rest, splits nothing. Words read by rule are no verbs, so a
    sentence in another language stays whole.
    """
    start, end = sentence
    inside = [word for word in words if start <= word.start < end]
    verbs = [word.start for word in inside if word.pos in _VERBS]
    cuts = [start]
    for word in inside:
        if word.pos == "CCONJ":
            cut = word.start
        elif text[word.start : word.end] in _SEMICOLONS:
            cut = word.end
        else:
            continue
        if any(cuts[-1] <= verb < cut for verb in verbs) and any(cut <= verb for verb in verbs):
            cuts.append(cut)
    return [part for left, right in pairwise([*cuts, end]) for part in trim(text, left, right)]


def _with_tokens(
    text: str, ranges: Sequence[Range], token_owners: Sequence[int]
) -> tuple[Span, ...]:
    """Number the ranges as spans; a range that owns no token joins the one before it (or after)."""
    tokens_of: dict[int, list[int]] = {}
    for token, owner in enumerate(token_owners):
        tokens_of.setdefault(owner, []).append(token)
    tokens_of.pop(NOBODY, None)
    owning = sorted(tokens_of)
    spans = []
    for index, (owner, following) in enumerate(pairwise([*owning, len(ranges)])):
        start = ranges[owner if index else 0][0]
        end = ranges[following - 1][1]
        first, last = tokens_of[owner][0], tokens_of[owner][-1]
        spans.append(Span(index, text[start:end], start, end, first, last + 1))
    return tuple(spans)


def _most_frequent(labels: Sequence[int]) -> int:
    """labels: ascending, but for NOBODY among them."""
    found = [label for label in labels if label != NOBODY]
    if not found or found[0] == found[-1]:
        return found[0] if found else NOBODY
    return Counter(found).most_common(1)[0][0]
