"""`Tap`: reads the signals' rows while a decoder runs with tapped attention.

A tap receives each layer's queries, keys and values (`tapped_attention`). It lets the signals
compute their rows in float32, a block of queries at a time, so that no array of L x H x K or K x K
numbers exists. It keeps one row per query and signal.

Symbols: B samples, q queries of one forward, c queries of one block, K cache slots, H heads, d head
width, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from omnitrace_core.errors import BackendError, TraceError
from omnitrace_core.tracing.replay.layer_reader import AttentionCall, LayerReader
from omnitrace_core.tracing.signals.base import Signal, elementary_signals
from omnitrace_core.tracing.signals.layer_view import LayerView

if TYPE_CHECKING:
    from torch import Tensor, nn

# Arrays [B, H, c, K] that exist at once: scores, rows, and what a signal computes from them.
_ARRAYS_ALIVE = 4


class Tap:
    """Reads signals in one forward of a decoder, over q queries.

    rows_bytes: limit for the float32 arrays that a block of queries needs, besides the results.
    """

    def __init__(self, decoder: nn.Module, signals: Mapping[str, Signal], rows_bytes: int) -> None:
        config: Any = decoder.config
        self._n_layers = int(config.num_hidden_layers)
        self._n_heads = int(config.num_attention_heads)
        self._signals = signals
        self._elementary = elementary_signals(signals)
        self._rows_bytes = rows_bytes
        self._rows: dict[str, Tensor] = {}
        self._seen_layers: set[int] = set()
        self._wants_gradient = any(signal.gradient for signal in signals.values())
        self.wants_odds = any(signal.odds for signal in signals.values())
        # Layers that can be read only when the produced tokens are known.
        self._deferred: list[AttentionCall] = []
        self._last_output: Tensor | None = None

    def observe(self, call: AttentionCall, attend: Callable[[], Tensor]) -> Tensor:
        """Read one layer, or keep it for `finish`. Returns the attention's output [B, q, H, d].

        attend: computes SDPA of this layer; not called if a signal's rows gave the output anyway.

        Signals that need the produced tokens are read in `finish`. If one takes a gradient, the
        output of the last layer becomes a leaf of the autograd graph of what follows. That part of
        the decoder is position-wise, so the graph is small.
        """
        import torch

        self._seen_layers.add(call.layer)
        takes_gradient = self._wants_gradient and call.layer == self._n_layers - 1
        if not (self.wants_odds or takes_gradient):
            output = self._read(call, None, None)
            return attend() if output is None else output
        self._deferred.append(call)
        if not takes_gradient:
            return attend()
        torch.set_grad_enabled(True)  # until the caller's no_grad block ends
        self._last_output = attend().detach().requires_grad_()
        return self._last_output

    def finish(
        self, hidden: Tensor, head: nn.Module, targets: Tensor, odds: Tensor | None
    ) -> dict[str, Tensor]:
        """The rows by signal, [B, q, K] float32, 0 on padding.

        hidden: [B, q, D], the decoder's output; head: maps it to logits; targets: [B, q] long, the
        tokens that these queries produce; odds: [B, q, D] float32, the gradient of their log odds
        by the residual stream, needed if `wants_odds`.

        Raises:
            BackendError: a layer did not use the tapped attention, or a signal returned invalid
                rows.
            TraceError: a row is not finite.
        """
        import torch

        gradient = None
        if self._last_output is not None:
            with torch.enable_grad():
                # Only the targets' rows of the head: d logit / d hidden is that row.
                logits = (hidden * head.weight[targets]).sum()  # type: ignore[index]
            gradient = torch.autograd.grad(logits, self._last_output)[0].transpose(1, 2)
        with torch.no_grad():
            for call in self._deferred:
                self._read(call, gradient if call.layer == self._n_layers - 1 else None, odds)
        missing = self._n_layers - len(self._seen_layers)
        if missing:
            raise BackendError(
                f"{missing} of {self._n_layers} decoder layers did not go through the tapped "
                "attention; this model's attention cannot be traced by the replay"
            )
        for name, signal in self._elementary.items():
            if signal.signed and name in self._rows:
                self._rows[name].relu_()
            self._check(name)
        return {name: self._rows_of(name, signal) for name, signal in self._signals.items()}

    def _rows_of(self, name: str, signal: Signal) -> Tensor:
        """A signal's rows [B, q, K]; for a combined signal the mean of its components' shares."""
        if not signal.components:
            return self._rows[name]
        names = [
            next(key for key, known in self._elementary.items() if known is component)
            for component in signal.components
        ]
        shares = (_shares(self._rows[key]) for key in names)
        total = next(shares)
        for share in shares:
            total += share
        return total.div_(len(names))

    def _read(
        self, call: AttentionCall, gradient: Tensor | None, odds: Tensor | None
    ) -> Tensor | None:
        """Add what the layer adds to every signal, one block of queries at a time.

        gradient: [B, H, q, d], of the logits by the attention's output; odds: [B, q, D], of the
        log odds by the residual stream. Returns the attention's output [B, q, H, d] if the rows
        were computed.
        """
        import torch

        # Under a caller's autocast float32 products would not be float32.
        with torch.autocast(call.query.device.type, enabled=False):
            return self._read_in_float32(call, gradient, odds)

    def _read_in_float32(
        self, call: AttentionCall, gradient: Tensor | None, odds: Tensor | None
    ) -> Tensor | None:
        import torch

        batch, heads, queries, _ = call.query.shape
        slots = call.key.shape[2]
        reader = LayerReader(call)
        outputs: list[Tensor] = []
        step = max(1, self._rows_bytes // (4 * _ARRAYS_ALIVE * batch * heads * slots))
        for start in range(0, queries, step):
            block = slice(start, min(start + step, queries))
            view = LayerView(
                call.layer,
                self._n_layers,
                self._n_heads,
                partial(reader.attention, block),
                reader.value_norms,
                gradient=None
                if gradient is None
                else partial(reader.attention_gradient, gradient[:, :, block]),
                odds_effect=None if odds is None else partial(reader.odds_effect, odds[:, block]),
            )
            for name, signal in self._elementary.items():
                rows = signal.rows(view)
                if rows is not None:
                    self._add(name, rows, block, (batch, queries, slots))
            if not self._deferred and view.attention_was_read:
                outputs.append(reader.output(view.attention))
        return torch.cat(outputs, dim=1) if outputs else None

    def _add(self, name: str, rows: Tensor, block: slice, shape: tuple[int, int, int]) -> None:
        import torch

        expected = (shape[0], block.stop - block.start, shape[2])
        if tuple(rows.shape) != expected:
            raise BackendError(
                f"signal {name!r} returned rows of shape {list(rows.shape)}; for this LayerView "
                f"they must have shape {list(expected)}"
            )
        if name not in self._rows:
            self._rows[name] = torch.zeros(shape, device=rows.device)
        self._rows[name][:, block] += rows

    def _check(self, name: str) -> None:
        if name not in self._rows:
            raise BackendError(f"signal {name!r} returned no rows in any layer")
        low, high = (float(edge) for edge in self._rows[name].aminmax())
        if low < 0:
            raise BackendError(
                f"signal {name!r} returned rows down to {low}; they must not be below 0 (or make "
                "it with Signal(..., signed=True))"
            )
        if not math.isfinite(low + high):
            # Most often an overflow in half precision, so an error of this sample.
            raise TraceError(
                f"signal {name!r} is not finite ({low} to {high}): the model's activations "
                "overflow; in float16, set model.dtype=bfloat16"
            )


def _shares(rows: Tensor) -> Tensor:
    """Rows scaled to sum to 1; a row of zeros stays as it is. [B, q, K] float32."""
    return rows / rows.sum(dim=-1, keepdim=True).clamp_min(1e-30)
