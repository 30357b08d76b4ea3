"""Responses as token ids: those a model generated, and those that were already known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from omnitrace_core.errors import ResponseEmpty, TraceError
from omnitrace_core.records import Sample
from omnitrace_core.tracing.detokenize import decode_response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Response:
    """A response before its trace; the end token is not part of it."""

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "given"]
    notes: tuple[str, ...] = ()


def generated_response(token_ids: Sequence[int], end_ids: Collection[int]) -> Response:
    """A generated row of token ids, up to its end token if it has one."""
    for index, token_id in enumerate(token_ids):
        if token_id in end_ids:
            return Response(tuple(token_ids[:index]), "stop")
    return Response(tuple(token_ids), "length")


def known_response(
    sample: Sample, tokenizer: PreTrainedTokenizerBase, end_ids: Collection[int]
) -> Response | None:
    """The response that stands in the sample: its token ids, or its text tokenized canonically.

    None if the model is to answer.

    Raises:
        TraceError: the token ids are not of this tokenizer, or not of the response's text.
        ResponseEmpty: there is nothing but an end token.
    """
    if sample.response_token_ids is not None:
        ids = _checked(sample, sample.response_token_ids, tokenizer, end_ids)
        return Response(ids, "given")
    if sample.response is None:
        return None
    encoded = tokenizer(sample.response, add_special_tokens=False, split_special_tokens=True)
    note = "the response was given as text and tokenized canonically"
    return Response(tuple(encoded["input_ids"]), "given", (note,))


def _checked(
    sample: Sample,
    token_ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Collection[int],
) -> tuple[int, ...]:
    vocabulary = len(tokenizer)
    wrong = [token_id for token_id in token_ids if not 0 <= token_id < vocabulary]
    if wrong:
        raise TraceError(
            f"sample {sample.sample_id!r}: response_token_ids holds {wrong[0]}, outside the "
            f"model's vocabulary of {vocabulary}; give ids of this model's tokenizer"
        )
    ids = list(token_ids)
    while ids and ids[-1] in end_ids:
        ids.pop()
    if not ids:
        raise ResponseEmpty(
            f"sample {sample.sample_id!r}: response_token_ids holds nothing but the end token; "
            "leave it out to have the model answer"
        )
    text, _ = decode_response(tokenizer, ids)
    if sample.response is not None and sample.response.strip() != text.strip():
        raise TraceError(
            f"sample {sample.sample_id!r}: response_token_ids decode to {text[:60]!r}, not to the "
            f"response {sample.response[:60]!r}; they are of another tokenizer, or of another "
            "response: correct them or leave them out"
        )
    return tuple(ids)
