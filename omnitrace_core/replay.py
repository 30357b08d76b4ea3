"""The replay: one pass of the decoder over the response, from which every signal is read.

Generation runs with the model's own attention and keeps its cache. Afterwards the decoder runs once
over the last prompt token and the response (all but its last token) on the first P - 1 entries of
that cache; a tap beside its attention computes the rows of those queries in float32, a few queries
at a time, weighs and sums them over layers and heads, and drops them. What is kept per signal is
one row per token. A response that is already known takes the same path after a prefill.

Symbols: B samples, P padded prompt positions, n response tokens (padded), K = P + n - 1 cache
slots, S signals, L layers, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnitrace_core.errors import BackendError
from omnitrace_core.records import Float32, Fold
from omnitrace_core.signals import signal_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from omnitrace_core.backends.base import Backend, PrefilledPrompt, Prepared

# Name under which the tapped attention is known to transformers, for attention and masks alike.
TAPPED = "omnitrace_tapped_sdpa"
# Most bytes of float32 attention scores alive at once.
ROW_BUDGET = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Replayed:
    """Rows of every signal for one batch.

    rows: by signal, [B, n, K] float32, zero on padding. logprobs: [B, n] float32, the log
    probability the model gave to each response token (before any decoding constraint).
    """

    rows: Mapping[str, Tensor]
    logprobs: Tensor


def replay(
    backend: Backend,
    prepared: Prepared,
    prompt: PrefilledPrompt,
    responses: Sequence[Sequence[int]],
    signals: Sequence[str],
) -> Replayed:
    """Run the decoder over the responses and read the signals. Consumes `prompt.cache`.

    responses: token ids of each of the B samples; may differ in length, at least one is not empty.

    Raises:
        BackendError: the model's attention cannot be tapped.
    """
    import torch

    queries, targets = _queries_and_targets(prepared.input_ids, responses)
    n = targets.shape[1]
    mask = torch.nn.functional.pad(prepared.attention_mask, (0, n - 1), value=1)
    _keep_prompt(prompt.cache, prepared.input_ids.shape[1] - 1)
    # Text positions count real tokens; the model's own offset turns them into rotary positions.
    positions = (mask.cumsum(-1) - 1 + prompt.position_delta.to(mask.device))[:, -n:]
    tap = _Tap(backend.decoder, mask, n, signals)
    with torch.inference_mode(), tapped(backend.decoder):
        output = backend.decoder(
            input_ids=queries,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=prompt.cache,
            use_cache=True,
            omnitrace_tap=tap,
        )
        logprobs = _logprobs(backend.output_head, output.last_hidden_state, targets)
    return Replayed(rows=tap.finished(), logprobs=logprobs)


def fold_rows(rows: Tensor, unit_index: Tensor, n_units: int) -> Fold:
    """Fold the rows of one sample into its units (paper, Algorithm 1, line 7).

    rows: [n_gen, K] float32; the first P columns are the prompt's, the others earlier tokens'.
    unit_index: [P] long, the unit of each prompt position, -1 for none.
    """
    import torch

    n_gen, n_prompt = rows.shape[0], unit_index.shape[0]
    index = torch.where(unit_index >= 0, unit_index, n_units).to(rows.device)
    # Summed in float64: a unit of many positions would add up float32's rounding with them.
    exact = rows.double()
    of_prompt = exact[:, :n_prompt]
    mass = exact.new_zeros(n_gen, n_units + 1).index_add_(1, index, of_prompt)
    peak = exact.new_zeros(n_gen, n_units + 1)
    peak.scatter_reduce_(1, index.expand(n_gen, -1), of_prompt, reduce="amax")
    return Fold(
        mass=_numpy(mass[:, :n_units]),
        peak=_numpy(peak[:, :n_units]),
        markup=_numpy(mass[:, n_units]),
        generated=_numpy(exact[:, n_prompt:].sum(1)),
    )


@contextmanager
def tapped(decoder: nn.Module) -> Iterator[None]:
    """Switch this decoder, and nothing else, to the tapped attention; restored on any exception."""
    _register()
    config: Any = decoder.config
    before = config._attn_implementation
    config._attn_implementation = TAPPED
    try:
        yield
    finally:
        config._attn_implementation = before


class _Tap:
    """Collects the signals' rows while the decoder runs; one per replay, passed by keyword."""

    def __init__(self, decoder: nn.Module, mask: Tensor, n: int, signals: Sequence[str]) -> None:
        import torch

        config: Any = decoder.config
        if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            raise BackendError(
                "this model has sliding-window layers, whose cache forgets keys; the replay needs "
                "all of them, so it cannot be traced"
            )
        shape = (config.num_hidden_layers, config.num_attention_heads)
        self._names = tuple(signals)
        self._weights = torch.stack([signal_weights(name, *shape) for name in signals]).to(
            mask.device
        )
        batch, slots = mask.shape
        # Query t stands in cache slot K - n + t and sees every real slot up to its own.
        slot = torch.arange(slots, device=mask.device)
        self._visible = mask.bool()[:, None, :] & (slot <= slot[-n:, None])
        self._rows = torch.zeros(len(signals), batch, n, slots, device=mask.device)
        self._layers_seen: set[int] = set()

    def observe(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """Add one layer's weighted rows. query: [B, H, n, d]; key: [B, H_kv, K, d]."""
        self._layers_seen.add(layer)
        wanted = self._weights[:, layer].any(dim=1).nonzero().flatten()
        if wanted.numel() == 0:
            return
        batch, heads, n, _ = query.shape
        slots = key.shape[2]
        keys = key.float().transpose(2, 3)
        step = max(1, ROW_BUDGET // (4 * batch * heads * slots))
        for start in range(0, n, step):
            part = slice(start, start + step)
            scores = _grouped_scores(query[:, :, part].float() * scaling, keys)
            scores.masked_fill_(~self._visible[:, None, part], float("-inf"))
            rows = scores.softmax(dim=-1)
            for s in wanted.tolist():
                weights = self._weights[s, layer].view(1, heads, 1, 1)
                self._rows[s, :, part] += (rows * weights).sum(dim=1)

    def finished(self) -> dict[str, Tensor]:
        """Rows by signal, [B, n, K]. Raises: BackendError if a layer never passed by."""
        missing = self._weights.shape[1] - len(self._layers_seen)
        if missing:
            raise BackendError(
                f"{missing} decoder layers did not go through the tapped attention; this model's "
                "attention cannot be traced by the replay"
            )
        return dict(zip(self._names, self._rows, strict=True))


def _grouped_scores(query: Tensor, keys: Tensor) -> Tensor:
    """Attention scores with grouped keys, without repeating them.

    query: [B, H, c, d]; keys: [B, H_kv, d, K]. Returns [B, H, c, K].
    """
    batch, heads, rows, width = query.shape
    groups = keys.shape[1]
    grouped = query.reshape(batch, groups, heads // groups * rows, width)
    return (grouped @ keys).view(batch, heads, rows, -1)


def _tapped_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """SDPA as ever, and the tap looks on."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    tap = kwargs.pop("omnitrace_tap", None)
    if tap is None:
        raise BackendError("the tapped attention was called outside a replay")
    tap.observe(module.layer_idx, query, key, kwargs["scaling"])
    output, _ = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    return output, None


def _register() -> None:
    """Make attention and mask function known together: without its mask, padding is attended to."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(TAPPED, _tapped_attention)
    AttentionMaskInterface.register(TAPPED, sdpa_mask)


def _queries_and_targets(
    input_ids: Tensor, responses: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """The tokens that ask (last prompt token, then the response but its last) and their answers.

    Both [B, n] long; behind a shorter response stands the id 0, whose rows are dropped later.
    """
    import torch

    n = max(len(response) for response in responses)
    targets = torch.zeros(len(responses), n, dtype=torch.long)
    for row, response in enumerate(responses):
        targets[row, : len(response)] = torch.tensor(list(response), dtype=torch.long)
    targets = targets.to(input_ids.device)
    return torch.cat([input_ids[:, -1:], targets[:, :-1]], dim=1), targets


def _keep_prompt(cache: Any, length: int) -> None:
    """Drop what the cache holds beyond its first `length` slots (crop counts what to drop)."""
    cache.crop(-(cache.get_seq_length() - length))


def _logprobs(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log probability of each target: [B, n] float32; logits are made a few positions at a time."""
    import torch

    vocabulary = int(head.weight.shape[0])
    step = max(1, ROW_BUDGET // (4 * vocabulary * hidden.shape[0]))
    parts = []
    for start in range(0, hidden.shape[1], step):
        logits = head(hidden[:, start : start + step]).float().log_softmax(dim=-1)
        parts.append(logits.gather(-1, targets[:, start : start + step, None]).squeeze(-1))
    return torch.cat(parts, dim=1)


def _numpy(tensor: Tensor) -> Float32:
    array: Float32 = tensor.detach().float().cpu().numpy()
    return array
