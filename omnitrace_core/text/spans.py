"""Cut a response into spans, and give each model token a span and a part of speech.

Model tokens and words have different borders: a token may hold a space and a word, half a word, a
full stop with the newline after it, or some bytes of a character. Spans and parts of speech follow
the same rule (`owners`): a token belongs to the range that holds most of its characters, white
space not counted; the first of several such ranges wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from omnitrace_core.options import SpanOptions
from omnitrace_core.records import Segmentation, Span
from omnitrace_core.text.analysis import SPACE, TaggedWord
from omnitrace_core.text.language import load_language
from omnitrace_core.text.sentences import Range, split_sentences, trim

NO_OWNER = -1

_VERBS = frozenset({"VERB", "AUX"})
_SEMICOLONS = frozenset(";\uff1b")  # ASCII and full-width


class Segmenter:
    """Cuts responses into sentences or clauses, with a part-of-speech tag per model token."""

    def __init__(self, options: SpanOptions) -> None:
        """Load the pipeline.

        Raises:
            ConfigError: the pipeline cannot be loaded, or sets no parts of speech or sentences.
        """
        self.level = options.level
        self.language = load_language(options.pipeline)

    def analyse_batch(self, responses: Iterable[str]) -> None:
        """Analyse responses in batches, which makes later calls of `segment` faster."""
        self.language.analyse_batch(text for text in responses if text.strip())

    def segment(self, response: str, char_spans: Sequence[tuple[int, int]]) -> Segmentation:
        """Spans of `response`, and a part of speech for each of the n_gen tokens.

        char_spans: [start, end) of each token in the response, in order; empty for a token that
        completes no character.

        Every span has at least one token, and token ranges do not overlap. A token of white space
        inside a span belongs to it and is tagged SPACE; between two spans it belongs to neither.
        """
        if not response.strip():
            return Segmentation((), (SPACE,) * len(char_spans))
        analysis = self.language.analyse(response)
        ranges = split_sentences(response, analysis)
        if self.level == "clause":
            ranges = [
                clause
                for sentence in ranges
                for clause in clauses(response, sentence, analysis.words)
            ]
        words = [(word.start, word.end) for word in analysis.words]
        pos = tuple(
            SPACE if word == NO_OWNER else analysis.words[word].pos
            for word in owners(response, char_spans, words)
        )
        spans = _with_tokens(response, ranges, owners(response, char_spans, ranges))
        return Segmentation(spans, pos, (analysis.note,) if analysis.note else ())


def owners(text: str, tokens: Sequence[Range], ranges: Sequence[Range]) -> list[int]:
    """For each token the index of the range that holds most of its characters, or NO_OWNER.

    tokens: [start, end) in text; an empty one counts as the character after it.
    ranges: [start, end) in text, in order, not overlapping. White space has no owner.
    """
    owner_of = [NO_OWNER] * len(text)
    for index, (start, end) in enumerate(ranges):
        for position in range(start, end):
            if not text[position].isspace():
                owner_of[position] = index
    return [_most_frequent(owner_of[start : max(end, start + 1)]) for start, end in tokens]


def clauses(text: str, sentence: Range, words: Sequence[TaggedWord]) -> list[Range]:
    """Split a sentence before coordinators and after semicolons that have a verb on both sides.

    Every clause has a verb: a coordinator between nouns does not split, and neither does one
    without a verb between it and the split before it. An analysis by rule tags no verbs, so a
    sentence that was analysed by rule stays whole.
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
    """Number the ranges as spans; a range without tokens joins the previous one (or the next)."""
    tokens_of: dict[int, list[int]] = {}
    for token, owner in enumerate(token_owners):
        tokens_of.setdefault(owner, []).append(token)
    tokens_of.pop(NO_OWNER, None)
    owning = sorted(tokens_of)
    spans = []
    for index, (owner, following) in enumerate(pairwise([*owning, len(ranges)])):
        start = ranges[owner if index else 0][0]
        end = ranges[following - 1][1]
        first, last = tokens_of[owner][0], tokens_of[owner][-1]
        spans.append(Span(index, text[start:end], start, end, first, last + 1))
    return tuple(spans)


def _most_frequent(labels: Sequence[int]) -> int:
    """The most frequent label but NO_OWNER, which may stand anywhere; the others are ascending."""
    found = [label for label in labels if label != NO_OWNER]
    if not found or found[0] == found[-1]:
        return found[0] if found else NO_OWNER
    return Counter(found).most_common(1)[0][0]
