"""The former address of what one's own signals import; `omnitrace_core` itself exports it now."""

from omnitrace_core.tracing.signals import (
    LayerView,
    Signal,
    load_signal,
    mean_of_shares,
    weighted_heads,
)

__all__ = ["LayerView", "Signal", "load_signal", "mean_of_shares", "weighted_heads"]
