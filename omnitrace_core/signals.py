"""The old import path of the names for writing a signal; import them from `omnitrace_core`."""

from omnitrace_core.tracing.signals import (
    LayerView,
    Signal,
    load_signal,
    mean_of_shares,
    weighted_heads,
)

__all__ = ["LayerView", "Signal", "load_signal", "mean_of_shares", "weighted_heads"]
