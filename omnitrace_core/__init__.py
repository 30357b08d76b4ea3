"""OmniTrace core: which parts of the input made the model say that?

A pure library: no Ray, no cluster. `OmniTracer` is the notebook door; heavy libraries are imported
when they are first used, so importing this package is cheap.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnitrace_core.tracer import OmniTracer, TraceResult

__version__ = "0.1.0"
__all__ = ["OmniTracer", "TraceResult", "__version__"]


def __getattr__(name: str) -> object:
    if name in ("OmniTracer", "TraceResult"):
        from omnitrace_core import tracer

        return getattr(tracer, name)
    raise AttributeError(f"module 'omnitrace_core' has no attribute {name!r}")
