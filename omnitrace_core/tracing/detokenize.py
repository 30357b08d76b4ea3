"""Find the characters that each response token stands for in the response text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokenizers decode a character whose bytes are incomplete to this one.
PARTIAL = "\ufffd"
# Tokens decoded together. A decoder that looks back a few tokens then gives the same text as for
# the whole response.
_WINDOW = 16


def decode_response(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The response text and the character range [start, end) of each token in it.

    The ranges are consecutive and cover the text. The range is empty for special tokens and for a
    token that is only part of a character; the token that completes the character covers it.
    """
    response = decode_text(tokenizer, token_ids)
    ends = _windowed_ends(tokenizer, token_ids)
    if not ends or ends[-1] != len(response):
        ends = [len(decode_text(tokenizer, token_ids[: k + 1])) for k in range(len(token_ids))]
    spans = []
    start = 0
    for end in ends:
        end = min(max(end, start), len(response))
        spans.append((start, end))
        start = end
    return response, tuple(spans)


def _windowed_ends(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> list[int]:
    """The end of each token, found by decoding a bounded window instead of the whole prefix."""
    ends: list[int] = []
    chars_before, window_start = 0, 0
    for k in range(len(token_ids)):
        text = decode_text(tokenizer, token_ids[window_start : k + 1])
        complete = text.rstrip(PARTIAL) if k + 1 < len(token_ids) else text
        ends.append(chars_before + len(complete))
        if complete == text and k - window_start >= _WINDOW:
            chars_before, window_start = chars_before + len(text), k + 1
    return ends


def decode_text(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The text of some tokens, without special tokens."""
    text = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return str(text)
