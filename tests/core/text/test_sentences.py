# ruff: noqa: RUF001 (text in other scripts)
"""Input texts cut into sentences and answer options."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import spacy

from omnitrace_core.text.analysis import TextAnalysis, analyse_by_rule
from omnitrace_core.text.language import Language
from omnitrace_core.text.sentences import (
    TextSpan,
    find_options,
    split_sentences,
    text_units,
    whole_text,
)


@pytest.fixture(scope="module")
def language() -> Language:
    """A pipeline that splits at punctuation only: these tests are about what is added to it."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return Language("blank", nlp)


def cut(text: str, language: Language) -> list[str]:
    return [text[span.start : span.end] for span in text_units(text, language)]


def options(text: str) -> list[str]:
    return [text[start:end] for start, end in find_options(text)]


def assert_partition(text: str, ranges: list[tuple[int, int]]) -> None:
    """In order, trimmed, not empty, and every character that is not white space exactly once."""
    covered: list[int] = []
    for start, end in ranges:
        assert start < end
        assert text[start:end] == text[start:end].strip()
        assert not covered or covered[-1] < start
        covered += range(start, end)
    left_out = set(range(len(text))) - set(covered)
    assert all(text[position].isspace() for position in left_out)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two!  Three?", ["One.", "Two!", "Three?"]),
        ("No stop\nthen more\r\n\r\nand more ", ["No stop", "then more", "and more"]),
        ("", []),
        (" \n\t ", []),
        ("1. First. 2. Second.", ["1. First.", "2. Second."]),
        ("1.\nFirst", ["1.\nFirst"]),
        ("(a) First.\n- \nSecond", ["(a) First.", "- \nSecond"]),
        ("1. **Clock** runs.\n2. - [ ] todo", ["1. **Clock** runs.", "2. - [ ] todo"]),
        ("B.\n\nBecause it rains.", ["B.", "Because it rains."]),  # an answer, not a marker
        ("Text\n👍\nText", ["Text", "👍", "Text"]),
        ("Done.\n-", ["Done.", "-"]),
        ("...", ["..."]),
    ],
)
def test_sentences(text: str, expected: list[str], language: Language) -> None:
    assert cut(text, language) == expected
    assert [text[a:b] for a, b in split_sentences(text, language.analyse(text))] == expected


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["Nice! ", "👍 ", "Really."], ["Nice! 👍", "Really."]),
        (['He said "yes. ', '" ', "Then more."], ['He said "yes. "', "Then more."]),
        (["** ", "Note. ", "More."], ["** Note.", "More."]),
        (["1. ", "** ", "Note.\n", "👍"], ["1. ** Note.", "👍"]),
    ],
)
def test_marks_alone_join_their_neighbour(pieces: list[str], expected: list[str]) -> None:
    """A piece without a word joins its neighbour on the line, wherever the pipeline cuts."""
    text = "".join(pieces)
    starts = tuple(len("".join(pieces[:i])) for i in range(len(pieces)))
    assert [text[a:b] for a, b in split_sentences(text, TextAnalysis((), starts))] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Which?\nA. wish\nB. wash", ["A. wish", "B. wash"]),
        ("Which?\n(A) wish. Or not.\n(B) wash\nExplain.", ["(A) wish. Or not.", "(B) wash"]),
        ("Which?\n A) wish\n\n B) wash\n\n C) fish", ["A) wish", "B) wash", "C) fish"]),
        ("Is it blue? (A) yes (B) no", ["(A) yes", "(B) no"]),
        ("Choose: A. cat B. dog C. cow\nNow.", ["A. cat", "B. dog", "C. cow"]),
        ("A) one B) two", ["A) one", "B) two"]),
        ("Which?\u2028A. one\u2028B. two", ["A. one", "B. two"]),
        ("哪个？A. 苹果 B. 香蕉", ["A. 苹果", "B. 香蕉"]),
        ("(A) 1 (B) 2\n(C) 3 (D) 4", ["(A) 1", "(B) 2", "(C) 3", "(D) 4"]),
        ("Q1\nA. x\nB. y\nQ2\nA. z\nB. w", ["A. x", "B. y", "A. z", "B. w"]),
        ("A. Ok? A. Is it so\nB. Vitamin B. So so", ["A. Ok? A. Is it so", "B. Vitamin B. So so"]),
        ("(A) $5\n(B) -3", ["(A) $5", "(B) -3"]),
    ],
)
def test_options(text: str, expected: list[str]) -> None:
    assert options(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A. Smith came.",
        "A. Smith and B. Jones wrote it.",
        "A. Smith met B. Jones. They left.",
        "A. Smith, B. Jones and C. Wu wrote it.",
        "I. Introduction\nII. Method",
        "See image (A) and image (B).",
        "The first (see Appendix A) and the second (see Appendix B) agree.",
        "B. dog\nC. cow",
        "a. cat\nb. dog",
        "1. cat\n2. dog",
        "Plan A. Then plan B. Then C.",
        "(A)\n(B)",
        "The answer is A.\nB is wrong.",
    ],
)
def test_texts_that_only_look_like_options(text: str) -> None:
    assert options(text) == []


def test_options_and_sentences_of_one_text(language: Language) -> None:
    text = "Look. Which one?\n(A) This. Or that. (B) None\nSay why. Be brief."
    assert text_units(text, language) == [
        TextSpan(0, 5, "sentence"),
        TextSpan(6, 16, "sentence"),
        TextSpan(17, 35, "option"),
        TextSpan(36, 44, "option"),
        TextSpan(45, 53, "sentence"),
        TextSpan(54, 63, "sentence"),
    ]


def test_whole_part_is_one_unit(language: Language) -> None:
    assert whole_text("  One. Two.\n(A) x (B) y\n") == [TextSpan(2, 23, "text_part")]
    assert whole_text(" \n") == []


def test_every_character_is_in_one_unit(language: Language) -> None:
    pieces = (
        ["One", "two.", "Three!", "4.", "1.", "-", "*", "(A)", "B)", "A.", "B.", '"', ")", "👍"]
        + ["…", "你好。", "Dr.", "e.g.", "\u00a0", "\u200b", "**", ":", "\x85", "\r\n"]
        + [" "] * 12 + ["\n"] * 4
    )  # fmt: skip
    rng = random.Random(3)
    for _ in range(400):
        text = "".join(rng.choices(pieces, k=rng.randrange(40)))
        for analyse in (language.analyse, lambda t: analyse_by_rule(t, "")):
            assert_partition(text, split_sentences(text, analyse(text)))
        assert_partition(text, [(span.start, span.end) for span in text_units(text, language)])


def test_real_questions(shared_data: Path, language: Language) -> None:
    samples = json.loads((shared_data / "samples.json").read_text())
    texts = [part["text"] for sample in samples for part in sample["question"] if "text" in part]
    kinds = {text: [span.kind for span in text_units(text, language)] for text in texts}
    assert sum(kind.count("option") for kind in kinds.values()) == 3 + 2 + 4
    for text in texts:
        assert_partition(text, [(span.start, span.end) for span in text_units(text, language)])
    question = next(text for text in texts if text.startswith("Which word"))
    assert cut(question, language) == ["Which word appears first", "A. wish", "B. wash"]
