"""Signals: what weighs a prompt position for the query that produces a token.

Symbols: L layers, H heads. An attention signal is a weight per (layer, head), and its row is the
weighted sum of the attention rows A[l, h] of that query: a(i) = sum_lh w[l, h] A[l, h, i]. The
weights sum to 1, so a row of the signal sums to 1 as well. A learned or chosen weighting is one
more line in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from omnitrace_core.errors import BackendError, UnknownName

if TYPE_CHECKING:
    from torch import Tensor

# (n_layers, n_heads) -> [L, H] float32, non-negative, summing to 1.
HeadWeights = Callable[[int, int], "Tensor"]


def attmean(n_layers: int, n_heads: int) -> Tensor:
    """Mean over all layers and heads (paper, C.1: AttMean)."""
    import torch

    return torch.full((n_layers, n_heads), 1.0 / (n_layers * n_heads))


def attraw(n_layers: int, n_heads: int) -> Tensor:
    """Last layer only, mean over its heads (paper, C.1: RawAtt)."""
    import torch

    weights = torch.zeros(n_layers, n_heads)
    weights[-1] = 1.0 / n_heads
    return weights


SIGNALS: dict[str, HeadWeights] = {"attmean": attmean, "attraw": attraw}


def signal_weights(name: str, n_layers: int, n_heads: int) -> Tensor:
    """Weights [L, H] float32 of a signal, from the table or a plug-in.

    Raises:
        UnknownName: no signal of this name; the message lists the valid ones.
        BackendError: a plug-in's weights are of another shape, negative, or do not sum to 1.
    """
    signal = SIGNALS.get(name) or _plugins().get(name)
    if signal is None:
        raise _unknown(name)
    weights = signal(n_layers, n_heads)
    total = float(weights.sum())
    if weights.shape != (n_layers, n_heads) or bool((weights < 0).any()) or abs(total - 1) > 1e-4:
        raise BackendError(
            f"signal {name!r} must give non-negative weights [{n_layers}, {n_heads}] that sum to "
            f"1; it gave {tuple(weights.shape)} summing to {total:.6f}"
        )
    return weights.float()


def check_signals(names: tuple[str, ...]) -> None:
    """Fail early on a name no table knows. Raises: UnknownName."""
    known = {*SIGNALS, *_plugins()}
    for name in names:
        if name not in known:
            raise _unknown(name)


def _plugins() -> dict[str, HeadWeights]:
    return {point.name: point.load() for point in entry_points(group="omnitrace.signals")}


def _unknown(name: str) -> UnknownName:
    valid = sorted({*SIGNALS, *_plugins()})
    return UnknownName(f"trace.signals names {name!r}, which is unknown; valid: {valid}")
