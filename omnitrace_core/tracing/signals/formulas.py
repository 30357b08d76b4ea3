"""The formulas of the shipped signals.

Symbols: L layers, H heads, c queries, K cache slots, A attention rows, v the value of a slot, W_O
the attention's output projection, y_t the token that a query produces, p its probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from omnitrace_core.tracing.signals.layer_view import LayerView


def all_heads(n_layers: int, n_heads: int) -> Tensor:
    """Equal weights [L, H] for all layers and heads (paper, C.1: AttMean)."""
    import torch

    return torch.ones(n_layers, n_heads)


def last_layer(n_layers: int, n_heads: int) -> Tensor:
    """Equal weights [L, H] for the heads of the last layer, 0 elsewhere (paper, C.1: RawAtt)."""
    import torch

    weights = torch.zeros(n_layers, n_heads)
    weights[-1] = 1.0
    return weights


def attgrads(view: LayerView) -> Tensor | None:
    """ReLU of the mean over heads of A x gradient, last layer (paper, C.1: AttGrads)."""
    if not view.is_last:
        return None
    return (view.attention * view.gradient).mean(dim=1).relu()


def attnorm(view: LayerView) -> Tensor:
    """A x ||v W_O||, mean over layers and heads. Rows do not sum to 1.

    Kobayashi et al. 2020, equation 4, without the residual connection.
    """
    return view.sum_weighted_by_slot(view.value_norms) / (view.n_layers * view.n_heads)


def attodds(view: LayerView) -> Tensor:
    """What attention to a slot adds to the token's log odds, on the direct path to the output.

    Sum over layers and heads of A x <v W_O, d log odds(y_t) / d residual stream>, with log odds =
    log p - log(1 - p). The signal is `signed`: negative sums count as 0. Rows do not sum to 1.

    This is OmniTrace's own formula, a kind of direct logit attribution. A head that reads something
    irrelevant to the token has no weight (the value of an attention sink is near 0). A head that
    reads evidence against the token lowers the sum. Log odds, unlike a logit, do not grow by what
    raises all tokens of a kind alike.
    """
    attention, effect = view.attention, view.odds_effect
    # Head by head: one product over all heads would need another array of the rows' size.
    total = attention[:, 0] * effect[:, 0]
    for head in range(1, view.n_heads):
        total.addcmul_(attention[:, head], effect[:, head])
    return total
