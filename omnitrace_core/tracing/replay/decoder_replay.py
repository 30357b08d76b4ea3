"""Replay a response: one pass of the decoder over it, from which every signal is read.

Generation runs with the model's own attention and keeps its key cache. Afterwards the decoder runs
over the last prompt token and the response (all but its last token), on the first P - 1 slots of
that cache, with tapped attention (`tap`). A long response is replayed in slices, so that memory
stays within a byte budget; no array of L x H x K or K x K numbers ever exists. A response that is
already known takes the same path after a prefill of the prompt.

Symbols: B samples, P padded prompt positions, n response tokens (padded), q tokens of one slice,
K cache slots, L layers, H heads, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnitrace_core.backends.caches import keep_prompt
from omnitrace_core.errors import BackendError
from omnitrace_core.tracing.replay.readout import norm_scale, read_out
from omnitrace_core.tracing.replay.tap import Tap
from omnitrace_core.tracing.replay.tapped_attention import tapped
from omnitrace_core.tracing.signals.base import Signal, elementary_signals

if TYPE_CHECKING:
    from torch import Tensor, nn

    from omnitrace_core.backends.base import PrefilledPrompt

_SUPPORTED_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


@dataclass(frozen=True, slots=True)
class ReplaySlice:
    """Rows and log probabilities of consecutive response tokens of a batch.

    start: index of the first token. rows: by signal, [B, q, K] float32, 0 on padding; the first P
    slots are the prompt's. logprobs: [B, q] float32, the log probability that the model gave to
    each token, before any decoding constraint.
    """

    start: int
    rows: Mapping[str, Tensor]
    logprobs: Tensor


def replay(
    decoder: nn.Module,
    head: nn.Module,
    prompt: PrefilledPrompt,
    responses: Sequence[Sequence[int]],
    signals: Mapping[str, Signal],
    rows_bytes: int,
) -> Iterator[ReplaySlice]:
    """Run the decoder over the responses and read the signals. Uses up `prompt.cache`.

    decoder: takes inputs_embeds, attention_mask, position_ids and past_key_values. head: maps its
    last hidden state to logits. responses: token ids of each of the B samples, of any lengths but
    not all empty; a slice's values behind the end of a shorter response are meaningless.
    rows_bytes: limit for the rows that a layer computes at once, and for the rows of a slice.

    Raises:
        BackendError: the model's attention cannot be tapped, its cache lacks the prompt, or a
            signal returned invalid rows.
        TraceError: a signal's rows are not finite.
    """
    import torch

    targets = _padded(responses).to(prompt.attention_mask.device)
    batch, n = targets.shape
    keep_prompt(prompt.cache, prompt.attention_mask.shape[1] - 1)
    slots = prompt.attention_mask.shape[1] + n
    bytes_per_token = 4 * len({**elementary_signals(signals), **signals}) * slots
    if any(signal.odds for signal in signals.values()):
        # The queries of all layers are kept until the tokens are known.
        config: Any = decoder.config
        bytes_per_token += 4 * config.num_hidden_layers * config.hidden_size
    step = -(-n // max(1, -(-batch * n * bytes_per_token // rows_bytes)))
    previous = prompt.last_embedding
    for start in range(0, n, step):
        of_slice = targets[:, start : start + step]
        with torch.no_grad():
            embeddings = decoder.get_input_embeddings()(of_slice)  # type: ignore[operator]
            inputs = torch.cat([previous.to(embeddings), embeddings[:, :-1]], dim=1)
            previous = embeddings[:, -1:]
        # One expression, so that no name keeps the pass alive while the caller has its slice.
        yield finish_pass(
            run_decoder(decoder, prompt, inputs, start, signals, rows_bytes),
            head,
            of_slice,
            rows_bytes,
        )


@dataclass(frozen=True, slots=True)
class DecoderPass:
    """A tapped pass over q queries; the tokens they produce may not be known yet.

    start: number of response tokens before this pass. hidden: [B, q, D], the decoder's output.
    norm, before_norm: the decoder's last norm and its input, if the decoder has a module `norm`.
    """

    start: int
    tap: Tap
    hidden: Tensor
    norm: Any = None
    before_norm: Tensor | None = None


def run_decoder(
    decoder: nn.Module,
    prompt: PrefilledPrompt,
    inputs: Tensor,
    start: int,
    signals: Mapping[str, Signal],
    rows_bytes: int,
) -> DecoderPass:
    """Run the tapped decoder over q queries, on a cache that ends just before them.

    inputs: [B, q, D], the embeddings of the tokens at the queries. start: number of response tokens
    before this pass.

    Raises:
        BackendError: the model's attention cannot be tapped, or a signal returned invalid rows.
    """
    import torch

    q = inputs.shape[1]
    mask = torch.nn.functional.pad(prompt.attention_mask, (0, start + q - 1), value=1)
    # Text positions count real tokens; the model's own offset turns them into rotary positions.
    positions = (mask.cumsum(-1) - 1 + prompt.position_delta.to(mask.device))[:, -q:]
    tap = Tap(decoder, signals, rows_bytes)
    norm = getattr(decoder, "norm", None)
    needs_norm = any(signal.odds for signal in signals.values())
    with torch.no_grad(), tapped(decoder), _recorded_inputs(norm if needs_norm else None) as seen:
        output = decoder(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=prompt.cache,
            use_cache=True,
            omnitrace_tap=tap,
        )
    return DecoderPass(start, tap, output.last_hidden_state, norm, *seen[-1:])


def finish_pass(
    decoder_pass: DecoderPass, head: nn.Module, targets: Tensor, rows_bytes: int
) -> ReplaySlice:
    """The rows of a pass, when the tokens that it produces are known. targets: [B, q] long.

    Raises:
        BackendError: a layer was not tapped, a signal returned invalid rows, or the last norm is
            not an RMS norm and a signal reads the odds.
        TraceError: a signal's rows are not finite.
    """
    import torch

    tap, hidden = decoder_pass.tap, decoder_pass.hidden.detach()
    with torch.no_grad():
        logprobs, odds = read_out(head, hidden, targets, rows_bytes, with_odds=tap.wants_odds)
        if odds is not None:
            odds *= norm_scale(decoder_pass.norm, decoder_pass.before_norm, hidden)
    rows = tap.finish(decoder_pass.hidden, head, targets, odds)
    return ReplaySlice(decoder_pass.start, rows, logprobs)


@contextmanager
def _recorded_inputs(module: Any) -> Iterator[list[Tensor]]:
    """A list to which each call of `module` appends its input; stays empty if module is None."""
    inputs: list[Tensor] = []
    if module is None:
        yield inputs
        return
    handle = module.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    try:
        yield inputs
    finally:
        handle.remove()


def check_layers(decoder: nn.Module, signals: Mapping[str, Signal]) -> None:
    """Check that the replay, and each of these signals, supports the decoder's architecture.

    Raises:
        BackendError: the decoder has layers without keys (linear attention, say), or a signal of
            the log odds is requested and the output of attention is scaled or normed before it is
            added to the residual stream.
    """
    kinds = set(getattr(decoder.config, "layer_types", None) or ())
    if kinds - _SUPPORTED_LAYERS:
        raise BackendError(
            f"this model has layers of kind {sorted(kinds - _SUPPORTED_LAYERS)}, which have no "
            "attention rows; it cannot be traced by the replay"
        )
    odds = [name for name, signal in signals.items() if signal.odds]
    layers: Any = getattr(decoder, "layers", [])
    scaled = getattr(decoder.config, "residual_multiplier", None) not in (None, 1.0)
    if odds and (scaled or any(hasattr(layer, "post_feedforward_layernorm") for layer in layers)):
        raise BackendError(
            "this model norms or scales the output of its attention before adding it to the "
            f"residual stream, which the signals {odds} do not support; choose other signals"
        )


def _padded(responses: Sequence[Sequence[int]]) -> Tensor:
    """Token ids [B, n] long, filled up with the id 0."""
    import torch

    n = max(len(response) for response in responses)
    targets = torch.zeros(len(responses), n, dtype=torch.long)
    for row, response in enumerate(responses):
        targets[row, : len(response)] = torch.tensor(list(response), dtype=torch.long)
    return targets
