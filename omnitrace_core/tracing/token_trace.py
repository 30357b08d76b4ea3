"""Assemble a sample's `TokenTrace` from its response and its folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnitrace_core.records import TokenTrace
from omnitrace_core.tracing.detokenize import decode_response
from omnitrace_core.tracing.folding import SampleFolds
from omnitrace_core.tracing.responses import ResponseTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from omnitrace_core.backends.base import EncodedSample


def token_trace(
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedSample,
    response: ResponseTokens,
    folds: SampleFolds | None,
) -> TokenTrace:
    """The trace of one sample. folds: None if tracing is disabled (`trace.enabled`)."""
    n_gen = len(response.token_ids)
    text, char_spans = decode_response(tokenizer, response.token_ids)
    notes = encoded.ready.notes + encoded.notes + response.notes
    expected = encoded.ready.sample.response
    if expected is not None and expected != text:
        notes += ("the traced tokens decode to a slightly other text than the given response",)
    if not response.token_ids:
        notes += ("the model ended at once: there is nothing to trace",)
    return TokenTrace(
        response=text,
        token_ids=response.token_ids,
        tokens=tuple(text[start:end] for start, end in char_spans),
        char_spans=char_spans,
        logprobs=np.zeros(n_gen, np.float32) if folds is None else folds.logprobs(),
        finish_reason=response.finish_reason,
        n_prompt_tokens=encoded.n_prompt,
        folds={} if folds is None else folds.folds(),
        notes=notes,
        positions=None if folds is None else folds.positions(),
    )
