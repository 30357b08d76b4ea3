"""Words with times: their order, sentences, punctuation, and batches of clips."""

from __future__ import annotations

import pytest

from omnitrace_core.asr.engines.transcribing import make_batches
from omnitrace_core.asr.engines.words import (
    copy_punctuation,
    ends_sentence,
    estimate_times,
    join_texts,
    split_sentences,
    tidy_words,
)
from omnitrace_core.records import SpeechSegment, Word


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["one", " two ", "", "three."], "one two three."),
        (["你", "好", "\uff0c", "世界"], "你好\uff0c世界"),
        (["你好", "world", "again"], "你好world again"),
        (["안녕", "세계"], "안녕 세계"),
        ([], ""),
    ],
)
def test_texts_are_joined_as_their_script_is_written(texts: list[str], joined: str) -> None:
    assert join_texts(texts) == joined


@pytest.mark.parametrize("text", ["Yes.", "Yes?", '"Yes!"', "好。", "好\uff1f」", "well…", "so.) "])
def test_texts_that_end_a_sentence(text: str) -> None:
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["", "yes", "yes,", "3.5", "好\uff0c", "a.b"])
def test_texts_that_do_not_end_a_sentence(text: str) -> None:
    assert not ends_sentence(text)


def test_words_are_put_in_order_and_within_the_sound() -> None:
    words = [
        Word(" early", -1.0, 0.5),
        Word("", 0.5, 0.6),
        Word("back", 0.4, 0.4),
        Word("long", 0.6, 3.0),
        Word("over", 2.0, 2.5),
        Word("late", 9.0, 9.5),
        Word("later", 11.0, 12.0),
    ]
    tidy = tidy_words(words, 0.0, 10.0)
    # "later" begins after the end of the sound: its text joins the word before.
    assert [word.text for word in tidy] == ["early", "back", "long", "over", "late later"]
    assert [word.start_s for word in tidy] == [0.0, 0.5, 0.6, 3.0, 9.0]
    assert [word.end_s for word in tidy] == pytest.approx([0.5, 0.52, 3.0, 3.02, 9.5])
    assert all(0.0 <= a.start_s < a.end_s <= 10.0 for a in tidy)


def test_sentences_end_with_their_punctuation() -> None:
    words = [Word("One", 0, 1), Word("two.", 3, 4), Word("Three", 4, 5)]
    assert split_sentences(words) == (
        SpeechSegment(0, 4, "One two.", tuple(words[:2])),
        SpeechSegment(4, 5, "Three", (words[2],)),
    )
    assert split_sentences([]) == ()


def test_words_without_punctuation_are_split_at_pauses() -> None:
    words = [Word("one", 0, 1), Word("two", 1.2, 2), Word("three", 2.4, 3)]
    assert [s.text for s in split_sentences(words)] == ["one two", "three"]


@pytest.mark.parametrize(
    ("texts", "punctuated", "found"),
    [
        (["the", "man", "walks"], " The man, walks.", ["The", "man,", "walks."]),
        (["你", "好", "a", "b"], "你好\uff0ca b。", ["你", "好\uff0c", "a", "b。"]),
        (["it's", "so"], "It's so?!", ["It's", "so?!"]),
        (["one"], '"One"', ['One"']),
        (["one", "two"], "one three", None),
        (["one"], "one two", None),
        (["one", "two"], "one", None),
        (["one"], "", None),
    ],
)
def test_punctuation_is_copied_to_words(
    texts: list[str], punctuated: str, found: list[str] | None
) -> None:
    assert copy_punctuation(texts, punctuated) == found


def test_estimated_times_follow_the_lengths_of_words() -> None:
    assert estimate_times(["ab", "abcd"], 1.0, 4.0) == [
        Word("ab", 1.0, 2.0),
        Word("abcd", 2.0, 4.0),
    ]
    assert estimate_times([], 1.0, 4.0) == []


def test_batches_hold_similar_lengths_within_the_budget() -> None:
    assert make_batches([5.0, 1.0, 4.0, 1.0, 70.0], 10.0) == [[1, 3], [2, 0], [4]]
    assert make_batches([1.0] * 5, 2.0) == [[0, 1], [2, 3], [4]]
    assert make_batches([], 10.0) == []
