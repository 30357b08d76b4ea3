"""Generate a response token by token, and trace each token as soon as it is known.

The prompt is run once. Each step then runs the decoder over one token and reads the rows of the
query that produces the next one, through the same tap as the replay, so both give the same numbers.
Keys and values lie in a cache that has its full size from the start: no step copies or grows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnitrace_core.backends.caches import keep_prompt, preallocated_cache
from omnitrace_core.options import DecodeOptions, TraceOptions
from omnitrace_core.records import Fold, SourceUnit
from omnitrace_core.tracing.detokenize import PARTIAL, decode_text
from omnitrace_core.tracing.folding import fold_rows, media_positions
from omnitrace_core.tracing.replay.decoder_replay import finish_pass, run_decoder
from omnitrace_core.tracing.signals.base import Signal

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from omnitrace_core.backends.base import Backend, DecodingRules, EncodedSample


@dataclass(frozen=True, slots=True)
class StreamedToken:
    """One token of a response, as soon as it is known.

    text: the characters that it adds to the response; empty for a token that is only part of a
    character, whose text comes with the token that completes it. unit: the source unit with the
    largest mass (or peak, by `trace.projection`) of the first signal, None if no unit can be a
    source. mass: that value, 0 without a unit. folds: by signal, of this token only
    ([1, n_units]).
    """

    token_id: int
    text: str
    logprob: float
    unit: SourceUnit | None
    mass: float
    folds: Mapping[str, Fold]


def stream_tokens(
    backend: Backend,
    encoded: EncodedSample,
    signals: Mapping[str, Signal],
    decode: DecodeOptions,
    trace: TraceOptions,
    candidates: Sequence[int],
    known_ids: Sequence[int] | None = None,
) -> Iterator[StreamedToken]:
    """Generate one sample's response, or follow a known one, and fold each token at once.

    candidates: indices of the units that can be a token's source. known_ids: token ids of a known
    response. New tokens are chosen as `backend.generate` chooses them. Ends before the end token or
    after `decode.max_new_tokens`.

    Raises:
        BackendError: the model's attention cannot be tapped.
        TraceError: a signal's rows are not finite.
    """
    import torch

    rows_bytes = trace.rows_mib * 1024**2
    prepared = backend.collate([encoded])
    max_tokens = decode.max_new_tokens if known_ids is None else len(known_ids)
    config: Any = backend.decoder.config
    cache = preallocated_cache(config.num_hidden_layers, encoded.n_prompt + max_tokens)
    prompt = backend.prefill(prepared, cache)
    keep_prompt(cache, encoded.n_prompt - 1)
    choose = _chooser(backend.decoding_rules(prepared, decode), decode.seed)
    ids, inputs = prepared.input_ids, prompt.last_embedding
    is_media = media_positions(encoded, ids.shape[1])
    response: list[int] = []
    emitted = ""
    for step in range(max_tokens):
        decoder_pass = run_decoder(backend.decoder, prompt, inputs, step, signals, rows_bytes)
        with torch.no_grad():
            logits = backend.output_head(decoder_pass.hidden[:, -1:].detach())[:, -1].float()
            token = choose(ids, logits) if known_ids is None else ids.new_tensor([known_ids[step]])
        if known_ids is None and int(token) in backend.end_ids:
            return
        replayed = finish_pass(decoder_pass, backend.output_head, token[:, None], rows_bytes)
        response.append(int(token))
        text = decode_text(backend.tokenizer, response).rstrip(PARTIAL)
        units = encoded.ready.units
        folds = {
            name: fold_rows(rows[0], prepared.unit_index[0], len(units), is_media)
            for name, rows in replayed.rows.items()
        }
        top, mass = _top_unit(folds[trace.signals[0]], trace.projection, candidates)
        unit = None if top is None else units[top]
        logprob = float(replayed.logprobs[0, 0])
        yield StreamedToken(response[-1], text[len(emitted) :], logprob, unit, mass, folds)
        emitted = text
        ids = torch.cat([ids, token[:, None]], dim=1)
        inputs = backend.decoder.get_input_embeddings()(token[:, None])  # type: ignore[operator]


def _top_unit(fold: Fold, projection: str, candidates: Sequence[int]) -> tuple[int | None, float]:
    """The candidate with the largest value in a fold of one token, and that value."""
    values = (fold.mass if projection == "mass" else fold.peak)[0]
    top = max(candidates, key=lambda j: (values[j], -j), default=None)
    return top, 0.0 if top is None else float(values[top])


def _chooser(rules: DecodingRules, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A function (token ids so far [1, K], logits [1, V]) -> the next token [1]."""
    import torch

    generator: Generator | None = None

    def choose(ids: Tensor, logits: Tensor) -> Tensor:
        nonlocal generator
        scores = rules.processors(ids, logits)
        if not rules.sample:
            return scores.argmax(dim=-1)
        if generator is None:
            # A separate generator: random numbers that the caller draws between two tokens do not
            # change the stream.
            generator = torch.Generator(scores.device).manual_seed(seed)
        drawn = torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)
        return drawn.squeeze(1)

    return choose
