"""Compute what a `LayerView` offers, in float32, from one call of a layer's attention.

Symbols: B samples, q queries of the call, c of them at a time, K cache slots, H heads, H_kv key
heads, d head width, D model width, A attention rows, v the value of a slot, W_O the output
projection `o_proj`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from omnitrace_core.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """The arguments of one layer's attention.

    query: [B, H, q, d]; key, value: [B, H_kv, K, d]; visible: [B, 1, q, K] bool.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    visible: Tensor
    scaling: float

    @property
    def layer(self) -> int:
        """Index of the decoder layer."""
        return int(self.module.layer_idx)  # type: ignore[arg-type]


class LayerReader:
    """Computes rows and related quantities of one layer; shares what all its queries need.

    `block` is the slice of the call's queries to compute, c of them.
    """

    def __init__(self, call: AttentionCall) -> None:
        self._call = call
        self._norms: Tensor | None = None

    @cached_property
    def _keys(self) -> Tensor:
        return self._call.key.float().transpose(2, 3)

    @cached_property
    def _values(self) -> Tensor:
        return self._call.value.float()

    @cached_property
    def _masked(self) -> Tensor:
        return ~self._call.visible

    def attention(self, block: slice) -> Tensor:
        """Softmax rows A, [B, H, c, K] float32."""
        query = self._call.query[:, :, block].float() * self._call.scaling
        scores = _grouped_matmul(query, self._keys)
        scores.masked_fill_(self._masked[:, :, block], float("-inf"))
        return scores.softmax(dim=-1)

    def output(self, attention: Tensor) -> Tensor:
        """The attention's output for these rows, [B, c, H, d] in the model's dtype."""
        output = _grouped_matmul(attention, self._values)
        return output.to(self._call.value.dtype).transpose(1, 2)

    def attention_gradient(self, gradient: Tensor) -> Tensor:
        """d x / d A = <d x / d output, value>, [B, H, c, K] float32.

        gradient: d x / d output, [B, H, c, d].
        """
        return _grouped_matmul(gradient.float(), self._values.transpose(2, 3))

    def odds_effect(self, direction: Tensor) -> Tensor:
        """<v W_O, direction> of every head and slot, [B, H, c, K] float32. direction: [B, c, D]."""
        heads, width = self._call.query.shape[1], self._call.query.shape[3]
        projected = direction @ self._projection
        batch, queries, _ = projected.shape
        per_head = projected.view(batch, queries, heads, width).transpose(1, 2)
        return self.attention_gradient(per_head)

    def value_norms(self) -> Tensor:
        """||v W_O|| of every head and slot, [B, H, K] float32.

        Computed through the Gram matrix of W_O: ||v W||^2 = v (W W^T) v^T needs [d, d] per head
        instead of [D, d].
        """
        import torch

        if self._norms is not None:
            return self._norms
        weight = self._projection
        batch, groups, slots, width = self._call.value.shape
        heads = self._call.query.shape[1]
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
        projection: Any = getattr(self._call.module, "o_proj", None)
        if projection is None:
            raise BackendError(
                "this signal needs the attention's output projection `o_proj`, which this model "
                "does not have; choose another signal"
            )
        weight: Tensor = projection.weight.float()
        return weight


def _grouped_matmul(rows: Tensor, per_group: Tensor) -> Tensor:
    """Multiply each head's rows by the matrix of its group, without repeating the matrix.

    rows: [B, H, c, x]; per_group: [B, H_kv, x, y]. Returns [B, H, c, y].
    """
    batch, heads, queries, width = rows.shape
    groups = per_group.shape[1]
    stacked = rows.reshape(batch, groups, heads // groups * queries, width)
    return (stacked @ per_group).view(batch, heads, queries, -1)
