"""`Signal`: how much each position weighs for the query that produces a token.

A signal is a small function. It takes one decoder layer for some queries (`LayerView`) and returns
what that layer adds to the signal's rows, or None if it adds nothing. The rows of all layers are
summed. A row is a_t(i) >= 0: the weight of each cache slot i for the query that produces token t.
Signals that are requested together share one replay and, in each layer, one softmax.

Symbols: B samples, L layers, H heads, c queries, K cache slots, A attention rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnitrace_core.errors import ConfigError
from omnitrace_core.tracing.signals.layer_view import LayerView

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal: its function, and what the function needs.

    rows: LayerView -> [B, c, K] float32, or None if the layer adds nothing.
    gradient, odds: whether the function reads `view.gradient`, `view.odds_effect`.
    signed: whether the sum over layers may be negative; negative sums then count as 0. Otherwise
    the sum must not be negative.
    weights: for a signal that is one weight per (layer, head): (n_layers, n_heads) -> [L, H].
    components: for a signal that combines the rows of others, see `mean_of_shares`.
    """

    rows: Callable[[LayerView], Tensor | None]
    gradient: bool = False
    odds: bool = False
    signed: bool = False
    weights: Callable[[int, int], Tensor] | None = None
    components: tuple[Signal, ...] = ()


def weighted_heads(weights: Callable[[int, int], Tensor]) -> Signal:
    """A signal that is one weight per (layer, head): a(i) = sum_lh w[l, h] A[l, h, i].

    weights: (n_layers, n_heads) -> [L, H] float, non-negative. They are scaled to sum to 1, so each
    row sums to 1.
    """

    def rows(view: LayerView) -> Tensor | None:
        table = weights(view.n_layers, view.n_heads)
        of_layer = table[view.layer] / table.sum()
        return view.sum_weighted_by_head(of_layer) if bool(of_layer.any()) else None

    return Signal(rows, weights=weights)


def mean_of_shares(*components: Signal) -> Signal:
    """The mean of several signals, after each row was scaled to sum to 1 over all slots.

    A row of zeros stays a row of zeros; the mean's row then sums to less than 1.

    components: signals that are not themselves made by this function.
    """
    return Signal(
        lambda view: None,
        gradient=any(signal.gradient for signal in components),
        odds=any(signal.odds for signal in components),
        components=components,
    )


def elementary_signals(signals: Mapping[str, Signal]) -> dict[str, Signal]:
    """The signals whose rows are read from the layers, by name.

    A combined signal is replaced by its components. A component that was also requested as a signal
    appears once.
    """
    elementary = {name: signal for name, signal in signals.items() if not signal.components}
    for name, signal in signals.items():
        for k, component in enumerate(signal.components):
            if not any(component is known for known in elementary.values()):
                elementary[f"{name}/{k}"] = component
    return elementary


def check_head_weights(signals: Mapping[str, Signal], config: object) -> None:
    """Check that signals with head weights have one weight for each head of the decoder.

    config: has num_hidden_layers and num_attention_heads; if it lacks one, nothing is checked.

    Raises:
        ConfigError: the shape of a signal's weights is wrong; the message names the signal.
    """
    n_layers = getattr(config, "num_hidden_layers", None)
    n_heads = getattr(config, "num_attention_heads", None)
    for name, signal in elementary_signals(signals).items():
        if signal.weights is None or n_layers is None or n_heads is None:
            continue
        shape = tuple(signal.weights(n_layers, n_heads).shape)
        if shape != (n_layers, n_heads):
            raise ConfigError(
                f"signal {name!r} has head weights of shape {list(shape)}, but this model has "
                f"{n_layers} layers of {n_heads} heads; give one row per layer and one column per "
                "head"
            )
