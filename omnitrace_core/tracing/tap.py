"""The tap: in place of a decoder's own attention it computes the attention rows of a few queries.

While `tapped` holds, one decoder (and nothing else) attends through `_tapped_attention`. A `Tap`
that is passed to the decoder's forward as `omnitrace_tap` then sees each layer's queries, keys and
values, and lets the signals read their rows in float32, a few queries at a time. What is kept is
one row per query and signal.

Symbols: B samples, q queries of one forward, c queries at a time, K cache slots, L layers, H heads,
H_kv key heads, d head width, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from omnitrace_core.errors import BackendError, TraceError
from omnitrace_core.tracing.signals import LayerView, Signal, plain_signals

if TYPE_CHECKING:
    from torch import Tensor, nn

# Name under which the tapped attention is known to transformers, for attention and masks alike.
TAPPED = "omnitrace_tapped_sdpa"
# What an attention function may be handed that changes its rows in a way the tap does not follow.
_NOT_FOLLOWED = ("s_aux", "softcap", "position_bias")
# Arrays of the size of the attention rows that are alive at once: scores, rows, and a signal's own.
_ALIVE = 4


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one layer's attention was called with.

    query: [B, H, q, d]; key, value: [B, H_kv, K, d]; visible: [B, 1, q, K] bool.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    visible: Tensor
    scaling: float

    @property
    def index(self) -> int:
        """Which of the decoder's layers."""
        return int(self.module.layer_idx)  # type: ignore[arg-type]


class Tap:
    """Reads signals in one forward of a decoder, over q queries.

    rows_bytes: most bytes of float32 rows alive at once, apart from the signals' own results.
    """

    def __init__(self, decoder: nn.Module, signals: Mapping[str, Signal], rows_bytes: int) -> None:
        config: Any = decoder.config
        self._n_layers = int(config.num_hidden_layers)
        self._n_heads = int(config.num_attention_heads)
        self._signals = signals
        self._plain = plain_signals(signals)
        self._rows_bytes = rows_bytes
        self._rows: dict[str, Tensor] = {}
        self._seen: set[int] = set()
        self._wants_gradient = any(signal.gradient for signal in signals.values())
        self.wants_odds = any(signal.odds for signal in signals.values())
        self._waiting: list[_Layer] = []  # read only when the answers are known
        self._output: Tensor | None = None

    def observe(self, layer: _Layer, attend: Callable[[], Tensor]) -> Tensor:
        """Read one layer, and return what its attention gives, [B, q, H, d].

        attend: SDPA of this layer; needed only where no signal had the rows computed anyway.
        What needs to know the answers is read in `finish`. With a gradient to take, the last
        layer's output becomes a leaf of the graph of what follows (which is position-wise).
        """
        import torch

        self._seen.add(layer.index)
        takes_gradient = self._wants_gradient and layer.index == self._n_layers - 1
        if not (self.wants_odds or takes_gradient):
            output = self._read(layer, None, None)
            return attend() if output is None else output
        self._waiting.append(layer)
        if not takes_gradient:
            return attend()
        torch.set_grad_enabled(True)  # until the caller's no_grad block ends
        self._output = attend().detach().requires_grad_()
        return self._output

    def finish(
        self, hidden: Tensor, head: nn.Module, targets: Tensor, odds: Tensor | None
    ) -> dict[str, Tensor]:
        """The rows by signal, [B, q, K] float32, padding 0.

        hidden: [B, q, D], the decoder's output; head: maps it to logits; targets: [B, q] long, the
        tokens that these queries produce; odds: [B, q, D] float32, the gradient of their log odds
        by the residual stream, needed if `wants_odds`.

        Raises:
            BackendError: a layer never passed by, or a signal gave no proper rows.
            TraceError: a row is not finite.
        """
        import torch

        gradient = None
        if self._output is not None:
            with torch.enable_grad():
                # Only the targets' rows of the head: d logit / d hidden is that row.
                logits = (hidden * head.weight[targets]).sum()  # type: ignore[index]
            gradient = torch.autograd.grad(logits, self._output)[0].transpose(1, 2)
        with torch.no_grad():
            for layer in self._waiting:
                self._read(layer, gradient if layer.index == self._n_layers - 1 else None, odds)
        missing = self._n_layers - len(self._seen)
        if missing:
            raise BackendError(
                f"{missing} of {self._n_layers} decoder layers did not go through the tapped "
                "attention; this model's attention cannot be traced by the replay"
            )
        for name, signal in self._plain.items():
            if signal.signed and name in self._rows:
                self._rows[name].relu_()
            self._check(name)
        return {name: self._rows_of(name, signal) for name, signal in self._signals.items()}

    def _rows_of(self, name: str, signal: Signal) -> Tensor:
        """A signal's rows, or the mean of its parts' shares, [B, q, K]."""
        if not signal.parts:
            return self._rows[name]
        names = [
            next(key for key, plain in self._plain.items() if plain is part)
            for part in signal.parts
        ]
        shares = (_shares(self._rows[key]) for key in names)
        total = next(shares)
        for share in shares:
            total += share
        return total.div_(len(names))

    def _read(self, layer: _Layer, gradient: Tensor | None, odds: Tensor | None) -> Tensor | None:
        """Hand the layer to every signal, a few queries at a time.

        gradient: [B, H, q, d], of the logits by the attention's output; odds: [B, q, D], of the
        log odds by the residual stream. Returns the attention's output [B, q, H, d], if the rows
        were computed.
        """
        import torch

        # Under a caller's autocast float32 products would not be float32.
        with torch.autocast(layer.query.device.type, enabled=False):
            return self._read_in_float32(layer, gradient, odds)

    def _read_in_float32(
        self, layer: _Layer, gradient: Tensor | None, odds: Tensor | None
    ) -> Tensor | None:
        import torch

        batch, heads, queries, _ = layer.query.shape
        slots = layer.key.shape[2]
        reading = _Reading(layer)
        outputs: list[Tensor] = []
        step = max(1, self._rows_bytes // (4 * _ALIVE * batch * heads * slots))
        for start in range(0, queries, step):
            part = slice(start, min(start + step, queries))
            view = LayerView(
                layer.index,
                self._n_layers,
                self._n_heads,
                partial(reading.attention, part),
                reading.value_norms,
                None if gradient is None else partial(reading.times_values, gradient[:, :, part]),
                None if odds is None else partial(reading.odds_effect, odds[:, part]),
            )
            for name, signal in self._plain.items():
                rows = signal.rows(view)
                if rows is not None:
                    self._add(name, rows, part, (batch, queries, slots))
            if not self._waiting and view.attention_is_known:
                outputs.append(reading.output(view.attention))
        return torch.cat(outputs, dim=1) if outputs else None

    def _add(self, name: str, rows: Tensor, part: slice, shape: tuple[int, int, int]) -> None:
        import torch

        expected = (shape[0], part.stop - part.start, shape[2])
        if tuple(rows.shape) != expected:
            raise BackendError(
                f"signal {name!r} gave rows of shape {list(rows.shape)}; a LayerView of this size "
                f"wants {list(expected)}"
            )
        if name not in self._rows:
            self._rows[name] = torch.zeros(shape, device=rows.device)
        self._rows[name][:, part] += rows

    def _check(self, name: str) -> None:
        if name not in self._rows:
            raise BackendError(f"signal {name!r} gave no rows in any layer")
        low, high = (float(edge) for edge in self._rows[name].aminmax())
        if low < 0:
            raise BackendError(f"signal {name!r} gave rows down to {low}; they must not be below 0")
        if not math.isfinite(low + high):
            # One sample's: an overflow in half precision, most often.
            raise TraceError(
                f"signal {name!r} is not finite ({low} to {high}): the model's activations "
                "overflow; in float16, set model.dtype=bfloat16"
            )


class _Reading:
    """What can be read of one layer; what all its queries share is made once."""

    def __init__(self, layer: _Layer) -> None:
        self._layer = layer
        self._norms: Tensor | None = None

    @cached_property
    def _keys(self) -> Tensor:
        return self._layer.key.float().transpose(2, 3)

    @cached_property
    def _values(self) -> Tensor:
        return self._layer.value.float()

    @cached_property
    def _hidden(self) -> Tensor:
        return ~self._layer.visible

    def attention(self, part: slice) -> Tensor:
        """Softmax rows, [B, H, c, K] float32."""
        query = self._layer.query[:, :, part].float() * self._layer.scaling
        scores = _grouped(query, self._keys)
        scores.masked_fill_(self._hidden[:, :, part], float("-inf"))
        return scores.softmax(dim=-1)

    def output(self, attention: Tensor) -> Tensor:
        """What rows of attention give, [B, c, H, d] in the model's dtype."""
        output = _grouped(attention, self._values)
        return output.to(self._layer.value.dtype).transpose(1, 2)

    def times_values(self, gradient: Tensor) -> Tensor:
        """d x / d A = <d x / d output, value>, [B, H, c, K] float32. gradient: [B, H, c, d]."""
        return _grouped(gradient.float(), self._values.transpose(2, 3))

    def odds_effect(self, direction: Tensor) -> Tensor:
        """<v W_O, direction> of every head and slot, [B, H, c, K] float32. direction: [B, c, D]."""
        heads, width = self._layer.query.shape[1], self._layer.query.shape[3]
        carried = direction @ self._projection
        batch, queries, _ = carried.shape
        return self.times_values(carried.view(batch, queries, heads, width).transpose(1, 2))

    def value_norms(self) -> Tensor:
        """||v W_O|| of every head and slot, [B, H, K] float32, through the Gram matrix of W_O.

        ||v W||^2 = v (W W^T) v^T needs [d, d] per head in place of [D, d].
        """
        import torch

        if self._norms is not None:
            return self._norms
        weight = self._projection
        batch, groups, slots, width = self._layer.value.shape
        heads = self._layer.query.shape[1]
        per_head = weight.view(weight.shape[0], heads, width)
        gram = torch.einsum("mhd,mhe->hde", per_head, per_head)
        self._norms = self._values.new_empty(batch, heads, slots)
        for head in range(heads):
            of_group = self._values[:, head * groups // heads]
            squared = ((of_group @ gram[head]) * of_group).sum(-1)
            self._norms[:, head] = squared.clamp_min_(0).sqrt_()
        return self._norms

    @cached_property
    def _projection(self) -> Tensor:
        """W_O, [D, H * d] float32."""
        projection: Any = getattr(self._layer.module, "o_proj", None)
        if projection is None:
            raise BackendError(
                "this signal needs the attention's output projection `o_proj`, which is not there"
            )
        weight: Tensor = projection.weight.float()
        return weight


def _shares(rows: Tensor) -> Tensor:
    """Rows scaled to sum to 1, a row of zeros left as it is. [B, q, K] float32."""
    return rows / rows.sum(dim=-1, keepdim=True).clamp_min(1e-30)


def _grouped(rows: Tensor, of_groups: Tensor) -> Tensor:
    """Products of each head's rows with its group's matrix, which is not repeated.

    rows: [B, H, c, x]; of_groups: [B, H_kv, x, y]. Returns [B, H, c, y].
    """
    batch, heads, queries, width = rows.shape
    groups = of_groups.shape[1]
    stacked = rows.reshape(batch, groups, heads // groups * queries, width)
    return (stacked @ of_groups).view(batch, heads, queries, -1)


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


def _tapped_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The same attention as ever; the tap computes it, or looks on."""
    import torch

    tap: Tap | None = kwargs.pop("omnitrace_tap", None)
    if tap is None:
        raise BackendError("the tapped attention was called outside a replay")
    if (
        mask is None
        or mask.dtype != torch.bool
        or mask.shape[-2:] != (query.shape[2], key.shape[2])
    ):
        raise BackendError(
            "no mask reached the tapped attention, so padding would be attended to: its mask "
            f"function must be registered with it under {TAPPED!r}"
        )
    for name in _NOT_FOLLOWED:
        if kwargs.get(name) is not None:
            raise BackendError(f"this model's attention uses {name}, which the tap does not follow")
    layer = _Layer(module, query, key, value, mask, kwargs["scaling"])

    return tap.observe(layer, partial(_attend, layer)), None


def _attend(layer: _Layer) -> Tensor:
    """What SDPA gives, [B, q, H, d]. Keys and values are not repeated: queries of a group stack."""
    import torch

    batch, heads, queries, width = layer.query.shape
    groups = layer.key.shape[1]
    per_group = heads // groups
    output = torch.nn.functional.scaled_dot_product_attention(
        layer.query.reshape(batch, groups, per_group * queries, width),
        layer.key,
        layer.value,
        attn_mask=layer.visible.repeat(1, 1, per_group, 1),
        scale=layer.scaling,
    )
    return output.view(batch, heads, queries, -1).transpose(1, 2)


def _tapped_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """SDPA's mask, always written out: the tap reads it too."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


def _register() -> None:
    """Make attention and mask function known together: without its mask, padding is attended to."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(TAPPED, _tapped_attention)
    AttentionMaskInterface.register(TAPPED, _tapped_mask)
