"""Where each response token stands in the response text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A character whose bytes are not complete yet is decoded to this.
PARTIAL = "\ufffd"
# Tokens decoded together: enough that decoders which look back a few tokens agree with the whole.
_WINDOW = 16


def decode_response(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The response text and the character range [start, end) of each token in it.

    The ranges tile the text. A token that only completes part of a character, and a special token,
    has an empty range; the token that completes the character has it whole.
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
    """End of each token, decoding a bounded window instead of the whole prefix each time."""
    ends: list[int] = []
    base, anchor = 0, 0
    for k in range(len(token_ids)):
        text = decode_text(tokenizer, token_ids[anchor : k + 1])
        whole = text.rstrip(PARTIAL) if k + 1 < len(token_ids) else text
        ends.append(base + len(whole))
        if whole == text and k - anchor >= _WINDOW:
            base, anchor = base + len(text), k + 1
    return ends


def decode_text(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The text of some tokens, special ones left out."""
    text = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return str(text)
