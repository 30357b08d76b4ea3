"""The character ranges of tokens cover the response, also with incomplete characters."""

from __future__ import annotations

from itertools import pairwise

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from omnitrace_core.tracing.detokenize import decode_response


@pytest.fixture(scope="module")
def tokenizer(tiny_model: str) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    return loaded


@pytest.mark.parametrize(
    "text",
    [
        "The lamp is red.",
        "Größe: 3 m², naïve café — “quoted”.\n\n1. First 🎉🎉\n",
        "灯是红色的。它在大厅里。",
        " leading and trailing ",
        "a" * 100,
    ],
)
def test_ranges_cover_the_text(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    response, spans = decode_response(tokenizer, ids)
    assert response == text
    assert len(spans) == len(ids)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    for token_id, (start, end) in zip(ids, spans, strict=True):
        alone = tokenizer.decode([token_id])
        if "\ufffd" not in alone:
            assert text[start:end] == alone


def test_incomplete_characters(tokenizer: PreTrainedTokenizerBase) -> None:
    half = tokenizer("é", add_special_tokens=False)["input_ids"][:1]
    letter = tokenizer("x", add_special_tokens=False)["input_ids"]
    for ids in (half, half + letter, letter + half, half * 40 + letter):
        response, spans = decode_response(tokenizer, ids)
        assert response == tokenizer.decode(ids)
        assert spans[-1][1] == len(response)
        assert all(a[1] == b[0] for a, b in pairwise(spans))


def test_special_tokens_have_empty_ranges(tokenizer: PreTrainedTokenizerBase) -> None:
    word = tokenizer("lamp", add_special_tokens=False)["input_ids"]
    special = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert isinstance(special, int)
    response, spans = decode_response(tokenizer, [*word, special, *word])
    assert response == "lamplamp"
    assert spans[len(word)] == (4, 4)


def test_no_tokens_decode_to_no_text(tokenizer: PreTrainedTokenizerBase) -> None:
    assert decode_response(tokenizer, []) == ("", ())
