"""Speech chunks that overlap or are only partly heard: where their texts go, and what is noted."""

from __future__ import annotations

import pytest

from omnitrace_core.records import SpeechChunk
from omnitrace_core.units.sound import place_chunks


@pytest.mark.parametrize(
    ("speech", "expected"),
    [
        # Within the first, not the last before it.
        ([(1, 2, "a"), (1.5, 1.8, "b"), (1.2, 3, "c")], ["1-2 a b", "2-3 c"]),
        ([(1, 2, "a"), (1.2, 4, "c"), (1.5, 3.5, "b")], ["1-2 a", "2-4 c b"]),
        # Mostly within the first; what is left of it has no words of its own.
        ([(1, 2, "a"), (1.2, 2.5, "b")], ["1-2 a b", "2-2.5 "]),
        # Equal halves: where it begins alone.
        ([(1, 2, "a"), (1.5, 2.5, "b")], ["1-2 a", "2-2.5 b"]),
        ([(1, 2, ""), (1, 2, "b"), (1, 2, "c")], ["1-2 b c"]),
    ],
)
def test_a_text_is_where_most_of_it_was_spoken(
    speech: list[tuple[float, float, str]], expected: list[str]
) -> None:
    placed, _ = place_chunks((0.0, 5.0), [SpeechChunk(*item) for item in speech])
    assert [f"{c.start_s:g}-{c.end_s:g} {c.text}" for c in placed] == expected


def test_a_transcript_beyond_what_is_heard_is_noted() -> None:
    note = "speech goes on outside what is heard; its transcript is whole"
    for edges, is_noted in [
        ((3.0, 8.0), True),
        ((-1.0, 2.0), True),
        ((-9.0, 9.0), True),
        ((3.0, 6.05), False),  # rounded
        ((-0.05, 3.0), False),
        ((6.0, 8.0), False),  # wholly outside: left out
        ((-2.0, 0.0), False),
    ]:
        _, notes = place_chunks((0.0, 6.0), [SpeechChunk(*edges, "hi there")])
        assert (note in notes) == is_noted
        # Speech without a transcript says nothing that was not heard.
        assert note not in place_chunks((0.0, 6.0), [SpeechChunk(*edges)])[1]
