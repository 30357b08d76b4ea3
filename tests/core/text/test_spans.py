# ruff: noqa: RUF001 (text in other scripts)
"""Responses cut into spans; each model token gets a span and a part of speech."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

import pytest
import spacy

from omnitrace_core.options import SpanOptions
from omnitrace_core.records import Segmentation
from omnitrace_core.text.spans import NO_OWNER, Segmenter, owners

LEXICON = {
    "NOUN": "dog cat man car bone fish",
    "VERB": "barks sleeps eats sees runs said",
    "AUX": "is was",
    "DET": "the a",
    "CCONJ": "and or but",
    "ADV": "loudly",
    "PUNCT": '. , ; ! ? ** " ; ；',
}


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a pipeline that tags words as LEXICON does, and all other words PROPN."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    ruler = nlp.add_pipe("attribute_ruler")
    ruler.add([[{"IS_SPACE": False}]], {"POS": "PROPN"})  # type: ignore[attr-defined]
    ruler.add([[{"IS_SPACE": True}]], {"POS": "SPACE"})  # type: ignore[attr-defined]
    for pos, words in LEXICON.items():
        ruler.add([[{"LOWER": {"IN": words.split()}}]], {"POS": pos})  # type: ignore[attr-defined]
    path = tmp_path_factory.mktemp("pipelines") / "lexicon"
    nlp.to_disk(path)
    return str(path)


def segment(
    pipeline: str, tokens: Sequence[str], level: Literal["sentence", "clause"] = "sentence"
) -> Segmentation:
    """Segment the response that consists of these tokens."""
    char_spans = list(pairwise(accumulate(map(len, tokens), initial=0)))
    options = SpanOptions(pipeline=pipeline, level=level)
    return Segmenter(options).segment("".join(tokens), char_spans)


def spans_of(found: Segmentation) -> list[tuple[str, int, int]]:
    return [(span.text, span.token_start, span.token_end) for span in found.spans]


def test_tokens_take_the_span_and_tag_of_most_of_their_characters(lexicon: str) -> None:
    tokens = ["The", " dog", " bar", "ks", ".", " The", " cat", " sleeps", ".\n\n", "A", " man"]
    found = segment(lexicon, tokens)
    assert spans_of(found) == [
        ("The dog barks.", 0, 5),
        ("The cat sleeps.", 5, 9),
        ("A man", 9, 11),
    ]
    assert found.pos == (
        *("DET", "NOUN", "VERB", "VERB", "PUNCT"),
        *("DET", "NOUN", "VERB", "PUNCT", "DET", "NOUN"),
    )
    assert [span.index for span in found.spans] == [0, 1, 2]
    assert [(span.char_start, span.char_end) for span in found.spans] == [
        (0, 14),
        (15, 30),
        (32, 37),
    ]
    assert found.notes == ()


def test_ties_go_to_the_first_word(lexicon: str) -> None:
    assert segment(lexicon, ["a,"]).pos == ("DET",)
    assert segment(lexicon, [",a"]).pos == ("PUNCT",)
    assert segment(lexicon, ["a, b"]).pos == ("DET",)
    assert segment(lexicon, ["a dog"]).pos == ("NOUN",)


def test_white_space_between_spans_belongs_to_no_span(lexicon: str) -> None:
    found = segment(lexicon, ["\n", "The", "  ", "dog", ".", " ", "\n\n", "A", " cat", " \n"])
    assert spans_of(found) == [("The  dog.", 1, 5), ("A cat", 7, 9)]
    assert found.pos == (
        *("SPACE", "DET", "SPACE", "NOUN", "PUNCT"),
        *("SPACE", "SPACE", "DET", "NOUN", "SPACE"),
    )


def test_list_markers_join_what_follows(lexicon: str) -> None:
    tokens = ["1", ".", " The", " dog", ".\n", "2", ".", " **", "The", " cat", "**", " sleeps", "."]
    assert spans_of(segment(lexicon, tokens)) == [
        ("1. The dog.", 0, 5),
        ("2. **The cat** sleeps.", 5, 13),
    ]


def test_tokens_with_some_bytes_of_a_character_belong_to_it(lexicon: str) -> None:
    response = "A cat. 😀 dog sleeps"
    char_spans = [
        (0, 1),
        (1, 5),
        (5, 6),
        (6, 7),
        (7, 7),
        (7, 7),
        (7, 8),
        (8, 12),
        (12, 19),
        (19, 19),
    ]
    found = Segmenter(SpanOptions(pipeline=lexicon)).segment(response, char_spans)
    assert spans_of(found) == [("A cat.", 0, 3), ("😀 dog sleeps", 4, 9)]
    assert found.pos[3:] == ("SPACE", "PROPN", "PROPN", "PROPN", "NOUN", "VERB", "SPACE")


def test_a_span_without_tokens_joins_its_neighbour(lexicon: str) -> None:
    found = segment(lexicon, ["The", " dog", " barks.", " Ah. cats", " sleep", "."])
    assert spans_of(found) == [("The dog barks. Ah.", 0, 3), ("cats sleep.", 3, 6)]
    found = segment(lexicon, ["Ah. cats", " sleep", "."])
    assert spans_of(found) == [("Ah. cats sleep.", 0, 3)]


@pytest.mark.parametrize("response", ["", " ", "\n\n \t"])
def test_white_space_has_no_spans(lexicon: str, response: str) -> None:
    assert segment(lexicon, list(response)) == Segmentation((), ("SPACE",) * len(response))


def test_punctuation_alone_is_one_span(lexicon: str) -> None:
    assert spans_of(segment(lexicon, ["!", "?", "**"])) == [("!?**", 0, 3)]


def test_no_tokens_no_spans(lexicon: str) -> None:
    assert Segmenter(SpanOptions(pipeline=lexicon)).segment("The dog.", []) == Segmentation((), ())


@pytest.mark.parametrize(
    ("response", "clauses"),
    [
        ("The dog barks and the cat sleeps.", ["The dog barks", "and the cat sleeps."]),
        ("The dog and the cat sleeps.", ["The dog and the cat sleeps."]),
        ("The dog eats a bone and a fish.", ["The dog eats a bone and a fish."]),
        ("The man runs; the dog barks.", ["The man runs;", "the dog barks."]),
        ("The man runs; loudly.", ["The man runs; loudly."]),
        (
            "The dog or cat eats, but the man is loudly; and the car runs.",
            ["The dog or cat eats,", "but the man is loudly;", "and the car runs."],
        ),
        (
            "The dog barks and the cat or the man sleeps.",
            ["The dog barks", "and the cat or the man sleeps."],
        ),
        ("A man said. The dog eats and sleeps", ["A man said.", "The dog eats", "and sleeps"]),
    ],
)
def test_clauses(lexicon: str, response: str, clauses: list[str]) -> None:
    tokens = re.findall(r"\s*\w+|\s*[^\w\s]", response)
    found = segment(lexicon, tokens, "clause")
    assert [span.text for span in found.spans] == clauses
    assert "".join(tokens[found.spans[0].token_start : found.spans[0].token_end]) == clauses[0]


def test_another_language_is_analysed_by_rule_and_noted(lexicon: str) -> None:
    found = segment(lexicon, ["我们", "去公园", "。", "天气", "很好", "！"], "clause")
    assert spans_of(found) == [("我们去公园。", 0, 3), ("天气很好！", 3, 6)]
    assert found.pos == ("ANY", "ANY", "PUNCT", "ANY", "ANY", "PUNCT")
    (note,) = found.notes
    assert note.startswith("fallback: most letters are not Latin")


def test_owners() -> None:
    text = "ab cd  ef"
    ranges = [(0, 2), (3, 5), (7, 9)]
    tokens = [(0, 1), (1, 4), (0, 9), (2, 3), (4, 8), (5, 7), (3, 3), (9, 9), (2, 9)]
    assert owners(text, tokens, ranges) == [0, 0, 0, NO_OWNER, 1, NO_OWNER, 1, NO_OWNER, 1]
    assert owners("abc d   e", [(0, 8)], [(0, 3), (4, 9)]) == [0], "spaces do not count"


def test_random_tokens(lexicon: str) -> None:
    """Spans are in order, have at least one token, and hold every visible character."""
    segmenters = [
        Segmenter(SpanOptions(pipeline=lexicon, level=level)) for level in ("sentence", "clause")
    ]
    words = ["The", "dog", "barks", ".", "and", "the", "cat", "sleeps", "!", "1.", "-", "**", ";"]
    words += ["e.g.", '"', "你好", "。", "😀", *["\n", " "] * 4]
    rng = random.Random(1)
    for _ in range(150):
        response = "".join(rng.choices(words, k=rng.randrange(1, 30)))
        cuts = sorted(rng.choices(range(len(response) + 1), k=rng.randrange(1, 30)))
        char_spans = list(zip([0, *cuts], [*cuts, len(response)], strict=True))
        for segmenter in segmenters:
            found = segmenter.segment(response, char_spans)
            assert len(found.pos) == len(char_spans)
            last_char = last_token = 0
            for span in found.spans:
                assert response[last_char : span.char_start].strip() == ""
                assert last_token <= span.token_start < span.token_end <= len(char_spans)
                assert span.text == response[span.char_start : span.char_end] == span.text.strip()
                last_char, last_token = span.char_end, span.token_end
            assert response[last_char:].strip() == ""
            blank = [not response[start:end].strip() for start, end in char_spans if start < end]
            tags = [p for p, (start, end) in zip(found.pos, char_spans, strict=True) if start < end]
            assert [tag == "SPACE" for tag in tags] == blank


def test_builtin_pipeline_on_a_typical_response() -> None:
    response = (
        "The first image shows a red car, e.g. a Ferrari, and Dr. Smith is driving it. "
        'He says, "Hello!"\n\n'
        "1. **Speed:** The car moves fast.\n"
        "2. It stops at 5 p.m. near the U.S. embassy."
    )
    found = segment("builtin", re.findall(r"\s?\w+|\s*[^\w\s]+\n*", response))
    assert [span.text for span in found.spans] == [
        "The first image shows a red car, e.g. a Ferrari, and Dr. Smith is driving it.",
        'He says, "Hello!"',
        "1. **Speed:** The car moves fast.",
        "2. It stops at 5 p.m. near the U.S. embassy.",
    ]
    clauses = segment(
        "builtin", ["The", " dog", " barked", " and", " the", " cat", " slept", "."], "clause"
    )
    assert [span.text for span in clauses.spans] == ["The dog barked", "and the cat slept."]
