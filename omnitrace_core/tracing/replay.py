"""The replay: one pass of the decoder over the response, from which every signal is read.

Generation runs with the model's own attention and keeps its cache. Afterwards the decoder runs over
the last prompt token and the response (all but its last token) on the first P - 1 entries of that
cache, with a tap beside its attention (`tap`). Very long responses go in slices, so that what is
alive stays within a byte budget: never anything of L x H x K or K x K numbers. A response that is
already known takes the same path after a prefill.

Symbols: B samples, P padded prompt positions, n response tokens (padded), q tokens of one slice,
K cache slots, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnitrace_core.backends.caches import keep_prompt
from omnitrace_core.errors import BackendError
from omnitrace_core.tracing.readout import norm_scale, read_out
from omnitrace_core.tracing.signals import Signal, plain_signals
from omnitrace_core.tracing.tap import Tap, tapped

if TYPE_CHECKING:
    from torch import Tensor, nn

    from omnitrace_core.backends.base import PrefilledPrompt

_FOLLOWED_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows and log probabilities of some of a batch's response tokens.

    start: the first of them. rows: by signal, [B, q, K] float32, zero on padding; the first P slots
    are the prompt's. logprobs: [B, q] float32, the log probability the model gave to each token
    (before any decoding constraint).
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
) -> Iterator[Slice]:
    """Run the decoder over the responses and read the signals. Consumes `prompt.cache`.

    decoder: takes inputs_embeds, attention_mask, position_ids and past_key_values. head: maps its
    last hidden state to logits. responses: token ids of each of the B samples; may differ in
    length, at least one is not empty; what stands behind a shorter one means nothing.
    rows_bytes: most bytes alive at once of the rows that a layer computes, and of those kept.

    Raises:
        BackendError: the model's attention cannot be tapped, or its cache lacks the prompt.
    """
    import torch

    targets = _padded(responses).to(prompt.attention_mask.device)
    batch, n = targets.shape
    keep_prompt(prompt.cache, prompt.attention_mask.shape[1] - 1)
    slots = prompt.attention_mask.shape[1] + n
    of_token = 4 * len({**plain_signals(signals), **signals}) * slots
    if any(signal.odds for signal in signals.values()):
        # Queries of all layers wait until the answers are known.
        of_token += 4 * decoder.config.num_hidden_layers * decoder.config.hidden_size  # type: ignore
    step = -(-n // max(1, -(-batch * n * of_token // rows_bytes)))
    previous = prompt.last_embedding
    for start in range(0, n, step):
        asked = targets[:, start : start + step]
        with torch.no_grad():
            embeddings = decoder.get_input_embeddings()(asked)  # type: ignore[operator]
            inputs = torch.cat([previous.to(embeddings), embeddings[:, :-1]], dim=1)
            previous = embeddings[:, -1:]
        # One expression: while the caller has the slice, nothing else of its pass is alive.
        yield finish(
            run_decoder(decoder, prompt, inputs, start, signals, rows_bytes),
            head,
            asked,
            rows_bytes,
        )


@dataclass(frozen=True, slots=True)
class Pass:
    """A tapped pass over q tokens, whose answers may not be known yet.

    start: how many response tokens come before its own. hidden: [B, q, D], the decoder's output;
    norm, before_norm: its last norm and what that was given, if it is where all families have it.
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
) -> Pass:
    """Run the tapped decoder over q tokens, on a cache that ends just before them.

    inputs: [B, q, D], embeddings of the tokens that ask.
    """
    import torch

    q = inputs.shape[1]
    mask = torch.nn.functional.pad(prompt.attention_mask, (0, start + q - 1), value=1)
    # Text positions count real tokens; the model's own offset turns them into rotary positions.
    positions = (mask.cumsum(-1) - 1 + prompt.position_delta.to(mask.device))[:, -q:]
    tap = Tap(decoder, signals, rows_bytes)
    before_norm: list[Tensor] = []
    watched = decoder if any(signal.odds for signal in signals.values()) else None
    with torch.no_grad(), tapped(decoder), _last_norm_watched(watched, before_norm):
        output = decoder(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=prompt.cache,
            use_cache=True,
            omnitrace_tap=tap,
        )
    norm = getattr(decoder, "norm", None)
    return Pass(start, tap, output.last_hidden_state, norm, *before_norm[-1:])


def finish(pass_: Pass, head: nn.Module, targets: Tensor, rows_bytes: int) -> Slice:
    """The rows of a pass, now that the tokens it produces are known. targets: [B, q] long."""
    import torch

    tap, hidden = pass_.tap, pass_.hidden.detach()
    with torch.no_grad():
        logprobs, odds = read_out(head, hidden, targets, rows_bytes, with_odds=tap.wants_odds)
        if odds is not None:
            odds *= norm_scale(pass_.norm, pass_.before_norm, hidden)
    return Slice(pass_.start, tap.finish(pass_.hidden, head, targets, odds), logprobs)


@contextmanager
def _last_norm_watched(decoder: nn.Module | None, seen: list[Tensor]) -> Iterator[None]:
    """Append what the decoder's last norm is given to `seen`; None: nobody wants to know."""
    norm = getattr(decoder, "norm", None)
    if norm is None:
        yield
        return
    handle = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    try:
        yield
    finally:
        handle.remove()


def check_layers(decoder: nn.Module, signals: Mapping[str, Signal]) -> None:
    """Whether the decoder is of a make that the replay, and these signals, can follow.

    Raises:
        BackendError: it has layers that keep no keys (linear attention, say); or a signal of the
            odds is asked for, and what attention gives is changed before it is added to the stream.
    """
    kinds = set(getattr(decoder.config, "layer_types", None) or ())
    if kinds - _FOLLOWED_LAYERS:
        raise BackendError(
            f"this model has layers of kind {sorted(kinds - _FOLLOWED_LAYERS)}, which have no "
            "attention rows; it cannot be traced by the replay"
        )
    odds = [name for name, signal in signals.items() if signal.odds]
    layers: Any = getattr(decoder, "layers", [])
    scaled = getattr(decoder.config, "residual_multiplier", None) not in (None, 1.0)
    if odds and (scaled or any(hasattr(layer, "post_feedforward_layernorm") for layer in layers)):
        raise BackendError(
            f"this model norms or scales what its attention gives before adding it, which "
            f"{odds} cannot follow; choose other signals for it"
        )


def _padded(responses: Sequence[Sequence[int]]) -> Tensor:
    """Token ids [B, n] long; behind a shorter response stands the id 0."""
    import torch

    n = max(len(response) for response in responses)
    targets = torch.zeros(len(responses), n, dtype=torch.long)
    for row, response in enumerate(responses):
        targets[row, : len(response)] = torch.tensor(list(response), dtype=torch.long)
    return targets
