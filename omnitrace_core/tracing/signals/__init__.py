"""Signals: their formulas, the table of their names, and how one is found by its name.

Import `LayerView`, `Signal`, `weighted_heads` and `mean_of_shares` from here to write a signal.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from omnitrace_core.errors import ConfigError, UnknownName
from omnitrace_core.tracing.signals import formulas
from omnitrace_core.tracing.signals.base import (
    Signal,
    check_head_weights,
    mean_of_shares,
    weighted_heads,
)
from omnitrace_core.tracing.signals.head_weights import read_head_weights
from omnitrace_core.tracing.signals.layer_view import LayerView

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ENTRY_POINTS",
    "HEADS",
    "SIGNALS",
    "LayerView",
    "Signal",
    "check_head_weights",
    "list_signals",
    "load_signal",
    "mean_of_shares",
    "weighted_heads",
]

# The name of a signal that reads its weights from a file is this prefix and the file's path or URL.
HEADS = "heads:"
# Group of entry points through which packages add signals.
ENTRY_POINTS = "omnitrace.signals"

_ATTMEAN = weighted_heads(formulas.all_heads)
_ATTODDS = Signal(formulas.attodds, odds=True, signed=True)

SIGNALS: dict[str, Signal] = {
    "attmean": _ATTMEAN,
    "attraw": weighted_heads(formulas.last_layer),
    "attgrads": Signal(formulas.attgrads, gradient=True),
    "attnorm": Signal(formulas.attnorm),
    "attodds": _ATTODDS,
    # attmean shows where the model reads, attodds what that changes in the output. Each misses
    # sources that the other finds.
    "attboth": mean_of_shares(_ATTMEAN, _ATTODDS),
}


def list_signals() -> tuple[str, ...]:
    """The names that `trace.signals` accepts: shipped ones, then those of entry points.

    It also accepts `heads:FILE`, where FILE is the path or URL of a file with a weight per
    (layer, head).
    """
    plugins = {point.name for point in entry_points(group=ENTRY_POINTS)}
    return (*SIGNALS, *sorted(plugins - set(SIGNALS)))


def load_signal(name: str, file: str | None = None) -> Signal:
    """The signal of this name: from the table, `heads:FILE`, or an `omnitrace.signals` entry point.

    An entry point names a `Signal`, or a function that takes a `LayerView`. file: the path or URL
    to read the head weights from, if it is not the FILE of the name.

    Raises:
        UnknownName: no signal has this name; the message lists the valid ones.
        ConfigError: the file of head weights cannot be used, or the entry point does not name a
            signal.
    """
    if name.startswith(HEADS):
        weights = read_head_weights(file or name[len(HEADS) :])
        return weighted_heads(partial(_fixed_weights, weights))
    if name in SIGNALS:
        return SIGNALS[name]
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        valid = ", ".join((*list_signals(), f"{HEADS}FILE"))
        raise UnknownName(f"trace.signals names {name!r}, which is unknown; valid: {valid}")
    loaded = points[name].load()
    if not isinstance(loaded, Signal) and not callable(loaded):
        raise ConfigError(
            f"the entry point {points[name].value!r} of signal {name!r} is neither a Signal nor a "
            "function of a LayerView"
        )
    return loaded if isinstance(loaded, Signal) else Signal(loaded)


def _fixed_weights(weights: Tensor, n_layers: int, n_heads: int) -> Tensor:
    return weights
