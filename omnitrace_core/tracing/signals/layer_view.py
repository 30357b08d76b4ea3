"""`LayerView`: one decoder layer, as a signal reads it.

Symbols: B samples, H heads, c queries, K cache slots, d head width, A attention rows, v the value
of a slot, W_O the attention's output projection `o_proj`, y_t the token that a query produces.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from omnitrace_core.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor


class LayerView:
    """One decoder layer for c queries of B samples. Each quantity is computed when first read.

    layer: the layer's index, from 0. n_layers, n_heads: of the decoder.
    """

    def __init__(
        self,
        layer: int,
        n_layers: int,
        n_heads: int,
        attention: Callable[[], Tensor],
        value_norms: Callable[[], Tensor],
        gradient: Callable[[], Tensor] | None = None,
        odds_effect: Callable[[], Tensor] | None = None,
    ) -> None:
        """The functions compute the properties of the same names; None: not available."""
        self.layer = layer
        self.n_layers = n_layers
        self.n_heads = n_heads
        self._attention = attention
        self._value_norms = value_norms
        self._gradient = gradient
        self._odds_effect = odds_effect

    @property
    def attention_was_read(self) -> bool:
        """Whether a signal has read `attention`, so that it is computed."""
        return "attention" in self.__dict__

    @property
    def is_last(self) -> bool:
        """Whether this is the decoder's last layer."""
        return self.layer == self.n_layers - 1

    @cached_property
    def attention(self) -> Tensor:
        """Attention rows A, [B, H, c, K] float32. Each row sums to 1 and is 0 on masked slots.

        All signals share this tensor: do not write to it.
        """
        return self._attention()

    @cached_property
    def value_norms(self) -> Tensor:
        """||v W_O||, [B, H, K] float32: the norm of each slot's value after `o_proj`."""
        return self._value_norms()

    @cached_property
    def gradient(self) -> Tensor:
        """d logit(y_t) / d A, [B, H, c, K] float32, for signals made with `gradient=True`.

        Raises:
            BackendError: this is not the last layer (the closed form holds only there), or the
                signal was not made with `gradient=True`.
        """
        if self._gradient is None:
            raise BackendError(
                "view.gradient is available only in the last layer, and only to signals made with "
                "Signal(..., gradient=True); check view.is_last first"
            )
        return self._gradient()

    @cached_property
    def odds_effect(self) -> Tensor:
        """<v W_O, d log odds(y_t) / d residual stream>, [B, H, c, K] float32.

        For signals made with `odds=True`; `formulas.attodds` says where the formula comes from. It
        is what a head would add to the log odds of the token if all its attention were on one slot
        and its output went straight to the output head: the layers above are left out, and the
        scale of the last norm is held fixed.

        Raises:
            BackendError: the signal was not made with `odds=True`.
        """
        if self._odds_effect is None:
            raise BackendError(
                "view.odds_effect is available only to signals made with Signal(..., odds=True)"
            )
        return self._odds_effect()

    def sum_weighted_by_slot(self, factors: Tensor) -> Tensor:
        """Sum over heads of the attention rows times a factor per head and slot.

        factors: [B, H, K]. Returns [B, c, K] float32. Never holds a second copy of the rows.
        """
        total = self.attention[:, 0] * factors[:, 0, None]
        for head in range(1, self.n_heads):
            total.addcmul_(self.attention[:, head], factors[:, head, None])
        return total

    def sum_weighted_by_head(self, weights: Tensor) -> Tensor:
        """Weighted sum of the attention rows over heads. weights: [H]. Returns [B, c, K]."""
        batch, heads, queries, slots = self.attention.shape
        flat = self.attention.reshape(batch, heads, queries * slots)
        return (weights.to(flat) @ flat).view(batch, queries, slots)
