"""Signals: what weighs a prompt position for the query that produces a token.

A signal is a small function. It is handed one decoder layer as some queries see it (`LayerView`)
and returns what that layer adds to the rows a_t(i) >= 0 of these queries, or None for nothing; the
rows of all layers are added up. Signals that are requested together share one replay and, in each
layer, one softmax. A signal that only weighs heads is a weight per (layer, head): `weighted_heads`.

Symbols: B samples, L layers, H heads, c queries, K cache slots, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from omnitrace_core.errors import BackendError, ConfigError, UnknownName
from omnitrace_core.tracing.head_weights import read_head_weights

if TYPE_CHECKING:
    from torch import Tensor

# A signal that reads its weights from a file is named by this and the file's path or URL.
HEADS = "heads:"
# Group of entry points through which packages add signals.
ENTRY_POINTS = "omnitrace.signals"


class LayerView:
    """One decoder layer as c queries of B samples see it; what a signal asks for is made then.

    layer: its index, from 0; n_layers, n_heads: of the decoder.
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
        self.layer = layer
        self.n_layers = n_layers
        self.n_heads = n_heads
        self._attention = attention
        self._value_norms = value_norms
        self._gradient = gradient
        self._odds_effect = odds_effect

    @property
    def attention_is_known(self) -> bool:
        """Whether a signal has asked for the attention."""
        return "attention" in self.__dict__

    @property
    def is_last(self) -> bool:
        """Whether this is the decoder's last layer."""
        return self.layer == self.n_layers - 1

    @cached_property
    def attention(self) -> Tensor:
        """Attention rows A, [B, H, c, K] float32; each sums to 1, and is 0 on what is masked.

        Shared by all signals: read it, do not write to it.
        """
        return self._attention()

    @cached_property
    def value_norms(self) -> Tensor:
        """||v W_O||: the norm of each slot's value carried through `o_proj`, [B, H, K] float32."""
        return self._value_norms()

    @cached_property
    def gradient(self) -> Tensor:
        """d logit(y_t) / d A, [B, H, c, K] float32, for signals made with `gradient=True`.

        Raises:
            BackendError: this is not the last layer; only there it is known in closed form.
        """
        if self._gradient is None:
            raise BackendError(
                "view.gradient is known in the last layer, and for signals made with "
                "Signal(..., gradient=True); ask view.is_last first"
            )
        return self._gradient()

    @cached_property
    def odds_effect(self) -> Tensor:
        """<v W_O, d log odds(y_t) / d residual stream>, [B, H, c, K] float32; see `attodds`.

        For signals made with `odds=True`. What a head would add to the log odds of the token, were
        all of its attention on one slot, if nothing came between it and the output: the layers
        above are left out, and the scale of the last norm is held fixed.

        Raises:
            BackendError: the signal was not made with `odds=True`.
        """
        if self._odds_effect is None:
            raise BackendError(
                "view.odds_effect is known to signals made with Signal(..., odds=True)"
            )
        return self._odds_effect()

    def scaled(self, factors: Tensor) -> Tensor:
        """Sum over heads of the attention rows times a factor per slot, without a copy of the rows.

        factors: [B, H, K]. Returns [B, c, K] float32.
        """
        total = self.attention[:, 0] * factors[:, 0, None]
        for head in range(1, self.n_heads):
            total.addcmul_(self.attention[:, head], factors[:, head, None])
        return total

    def weighted(self, weights: Tensor) -> Tensor:
        """Sum of the attention rows over heads. weights: [H]. Returns [B, c, K] float32."""
        batch, heads, queries, slots = self.attention.shape
        flat = self.attention.reshape(batch, heads, queries * slots)
        return (weights.to(flat) @ flat).view(batch, queries, slots)


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal: its function, and whether it reads `view.gradient` or `view.odds_effect`.

    rows: LayerView -> [B, c, K] float32 or None if the layer adds nothing. Their sum over layers is
    non-negative, or, with `signed`, what is below 0 in it counts as 0.
    weights: of a signal that is a weight per (layer, head), (n_layers, n_heads) -> [L, H].
    parts: of a signal that is made of others' rows and has none of its own; see `mean_of_shares`.
    """

    rows: Callable[[LayerView], Tensor | None]
    gradient: bool = False
    odds: bool = False
    signed: bool = False
    weights: Callable[[int, int], Tensor] | None = None
    parts: tuple[Signal, ...] = ()


def weighted_heads(weights: Callable[[int, int], Tensor]) -> Signal:
    """A signal that is a weight per (layer, head): a(i) = sum_lh w[l, h] A[l, h, i].

    weights: (n_layers, n_heads) -> [L, H] float, non-negative; they are scaled to sum to 1, so that
    the rows do.
    """

    def rows(view: LayerView) -> Tensor | None:
        table = weights(view.n_layers, view.n_heads)
        of_layer = table[view.layer] / table.sum()
        return view.weighted(of_layer) if bool(of_layer.any()) else None

    return Signal(rows, weights=weights)


def mean_of_shares(*parts: Signal) -> Signal:
    """The mean of signals, each as shares: a token's row is scaled to sum to 1 over all slots.

    A row that is 0 everywhere stays so, and the mean's sum is smaller by that.

    parts: signals with rows of their own.
    """
    return Signal(
        lambda view: None,
        gradient=any(part.gradient for part in parts),
        odds=any(part.odds for part in parts),
        parts=parts,
    )


def plain_signals(signals: Mapping[str, Signal]) -> dict[str, Signal]:
    """The signals whose rows are read of the layers: parts in the place of what is made of them.

    A part that is also a signal of its own is read once.
    """
    plain = {name: signal for name, signal in signals.items() if not signal.parts}
    for name, signal in signals.items():
        for k, part in enumerate(signal.parts):
            if not any(part is known for known in plain.values()):
                plain[f"{name}/{k}"] = part
    return plain


def check_shape(signals: Mapping[str, Signal], config: object) -> None:
    """Signals that weigh heads have a weight for each of the decoder's.

    config: has num_hidden_layers and num_attention_heads; without them nothing is checked.

    Raises:
        ConfigError: names the signal.
    """
    n_layers = getattr(config, "num_hidden_layers", None)
    n_heads = getattr(config, "num_attention_heads", None)
    for name, signal in plain_signals(signals).items():
        if signal.weights is None or n_layers is None or n_heads is None:
            continue
        shape = tuple(signal.weights(n_layers, n_heads).shape)
        if shape != (n_layers, n_heads):
            raise ConfigError(
                f"signal {name!r} weighs heads {list(shape)}, but this model has {n_layers} layers "
                f"of {n_heads} heads; give one row per layer and one column per head"
            )


def _all_heads(n_layers: int, n_heads: int) -> Tensor:
    """Mean over all layers and heads (paper, C.1: AttMean)."""
    import torch

    return torch.ones(n_layers, n_heads)


def _last_layer(n_layers: int, n_heads: int) -> Tensor:
    """Last layer only, mean over its heads (paper, C.1: RawAtt)."""
    import torch

    weights = torch.zeros(n_layers, n_heads)
    weights[-1] = 1.0
    return weights


def _attgrads(view: LayerView) -> Tensor | None:
    """ReLU of the mean over heads of attention x gradient, last layer (paper, C.1: AttGrads)."""
    if not view.is_last:
        return None
    return (view.attention * view.gradient).mean(dim=1).relu()


def _attnorm(view: LayerView) -> Tensor:
    """Attention times the norm of the carried value, mean over layers and heads.

    Kobayashi et al. 2020, equation 4, without the residual. Rows do not sum to 1.
    """
    return view.scaled(view.value_norms) / (view.n_layers * view.n_heads)


def _attodds(view: LayerView) -> Tensor:
    """What reading a slot adds to the log odds of the token, on the direct way to the output.

    ReLU of the sum over layers and heads of A x <v W_O, d log odds(y_t) / d residual stream>, where
    the log odds are log p - log(1 - p). Ours, in the line of direct logit attribution: heads that
    read what does not matter to the token weigh nothing (a sink's value is near 0), those that
    read against it weigh against it, and unlike a logit, the odds do not count what speaks for all
    words of a kind alike. Rows do not sum to 1.
    """
    attention, effect = view.attention, view.odds_effect
    # Head by head: a product of the size of the rows would be made, and read, once more.
    total = attention[:, 0] * effect[:, 0]
    for head in range(1, view.n_heads):
        total.addcmul_(attention[:, head], effect[:, head])
    return total


_ATTMEAN = weighted_heads(_all_heads)
_ATTODDS = Signal(_attodds, odds=True, signed=True)

SIGNALS: dict[str, Signal] = {
    "attmean": _ATTMEAN,
    "attraw": weighted_heads(_last_layer),
    "attgrads": Signal(_attgrads, gradient=True),
    "attnorm": Signal(_attnorm),
    "attodds": _ATTODDS,
    # Where a model looks, and what it says because of that: each is blind where the other sees.
    "attboth": mean_of_shares(_ATTMEAN, _ATTODDS),
}


def list_signals() -> tuple[str, ...]:
    """The names that `trace.signals` accepts: shipped ones, then those of entry points.

    The last entry, `heads:FILE`, stands for all signals that read a weight per (layer, head) from a
    file: write the file's path or URL in the place of FILE.
    """
    plugins = {point.name for point in entry_points(group=ENTRY_POINTS)}
    return (*SIGNALS, *sorted(plugins - set(SIGNALS)), f"{HEADS}FILE")


def load_signal(name: str, file: str | None = None) -> Signal:
    """The signal of this name: from the table, `heads:FILE`, or an `omnitrace.signals` entry point.

    An entry point names a `Signal`, or a function that takes a `LayerView`. file: the path or URL
    to read the head weights from, if it is not the FILE of the name.

    Raises:
        UnknownName: no signal of this name; the message lists the valid ones.
        ConfigError: the file of head weights cannot be used.
    """
    if name.startswith(HEADS):
        weights = read_head_weights(file or name[len(HEADS) :])
        return weighted_heads(partial(_given_weights, weights))
    if name in SIGNALS:
        return SIGNALS[name]
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        raise UnknownName(
            f"trace.signals names {name!r}, which is unknown; valid: {', '.join(list_signals())}"
        )
    loaded = points[name].load()
    if not isinstance(loaded, Signal) and not callable(loaded):
        raise ConfigError(
            f"the entry point {points[name].value!r} of signal {name!r} is neither a Signal nor a "
            "function of a LayerView"
        )
    return loaded if isinstance(loaded, Signal) else Signal(loaded)


def _given_weights(weights: Tensor, n_layers: int, n_heads: int) -> Tensor:
    return weights
