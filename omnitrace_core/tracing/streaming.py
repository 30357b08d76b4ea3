"""Tokens with their units while they are being generated: a tap at every step.

The prompt is run once; each step then hands the decoder one token and reads the rows of the query
that produces the next one, through the same tap as the replay, so both give the same numbers. Keys
and values lie in a cache of full size from the start: no step copies or grows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnitrace_core.backends.caches import keep_prompt, preallocated_cache
from omnitrace_core.options import DecodeOptions, TraceOptions
from omnitrace_core.records import Fold, SourceUnit
from omnitrace_core.tracing.detokenize import PARTIAL, decode_text
from omnitrace_core.tracing.folding import fold_rows
from omnitrace_core.tracing.replay import finish, run_decoder
from omnitrace_core.tracing.signals import Signal

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from omnitrace_core.backends.base import Backend, DecodingRules, Encoded


@dataclass(frozen=True, slots=True)
class StreamedToken:
    """One token of a response, as soon as it is known.

    text: what it adds to the response; empty for a token that completes no character, whose text
    comes with the one that does. unit: the source unit with the largest mass (or peak, as the
    projection says) of the first signal, None if the sample has none; mass: that value.
    folds: by signal, of this one token ([1, n_units]).
    """

    token_id: int
    text: str
    logprob: float
    unit: SourceUnit | None
    mass: float
    folds: Mapping[str, Fold]


def stream_tokens(
    backend: Backend,
    item: Encoded,
    signals: Mapping[str, Signal],
    decode: DecodeOptions,
    trace: TraceOptions,
    candidates: Sequence[int],
    given: Sequence[int] | None = None,
) -> Iterator[StreamedToken]:
    """Generate one sample's response, or follow a given one, and fold each token at once.

    candidates: units that can be a token's. given: token ids of a known response. Tokens are chosen
    as `backend.generate` does; ends before the end token or after `decode.max_new_tokens`.

    Raises:
        BackendError: the model's attention cannot be tapped.
    """
    import torch

    rows_bytes = trace.rows_mib * 1024**2
    prepared = backend.collate([item])
    most = decode.max_new_tokens if given is None else len(given)
    config: Any = backend.decoder.config
    cache = preallocated_cache(config.num_hidden_layers, item.n_prompt + most)
    prompt = backend.prefill(prepared, cache)
    keep_prompt(cache, item.n_prompt - 1)
    choose = _chooser(backend.decoding_rules(prepared, decode), decode.seed)
    ids, inputs = prepared.input_ids, prompt.last_embedding
    response: list[int] = []
    said = ""
    for step in range(most):
        pass_ = run_decoder(backend.decoder, prompt, inputs, step, signals, rows_bytes)
        with torch.no_grad():
            logits = backend.output_head(pass_.hidden[:, -1:].detach())[:, -1].float()
            token = choose(ids, logits) if given is None else ids.new_tensor([given[step]])
        if given is None and int(token) in backend.end_ids:
            return
        part = finish(pass_, backend.output_head, token[:, None], rows_bytes)
        response.append(int(token))
        text = decode_text(backend.tokenizer, response).rstrip(PARTIAL)
        index, units = prepared.unit_index[0], item.ready.units
        folds = {name: fold_rows(rows[0], index, len(units)) for name, rows in part.rows.items()}
        first = folds[trace.signals[0]]
        row = (first.mass if trace.projection == "mass" else first.peak)[0]
        top = max(candidates, key=lambda j: (row[j], -j), default=None)
        yield StreamedToken(
            token_id=response[-1],
            text=text[len(said) :],
            logprob=float(part.logprobs[0, 0]),
            unit=None if top is None else units[top],
            mass=0.0 if top is None else float(row[top]),
            folds=folds,
        )
        said = text
        ids = torch.cat([ids, token[:, None]], dim=1)
        inputs = backend.decoder.get_input_embeddings()(token[:, None])  # type: ignore[operator]


def _chooser(rules: DecodingRules, seed: int) -> Any:
    """(token ids so far [1, K], logits [1, V]) -> the next token [1]."""
    import torch

    generator: Generator | None = None

    def choose(ids: Tensor, logits: Tensor) -> Tensor:
        nonlocal generator
        scores = rules.processors(ids, logits)
        if not rules.sample:
            return scores.argmax(dim=-1)
        if generator is None:
            # One of our own: what the caller draws between two tokens changes nothing.
            generator = torch.Generator(scores.device).manual_seed(seed)
        drawn = torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)
        return drawn.squeeze(1)

    return choose
