"""Name the machine, the stage and the chunk of a fault that is the machine's.

Such a fault leaves the stage as a NodeFault: it is never a sample's error row, and the driver has
the chunk done on another machine (`pipeline.node_tries`).
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import pyarrow as pa

from omnitrace_core.errors import LeaseLost, NodeFault
from omnitrace_core.runtime.node_faults import as_node_fault, is_node_fault

P = ParamSpec("P")
T = TypeVar("T")


def naming_node_faults(stage: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a stage's function whose first table holds the chunk.

    What the function raises is raised as a NodeFault if the machine is the cause, whatever error
    reports it: an error of the attempt log, of a library's first import, or of a sample.
    """

    def decorate(work: Callable[P, T]) -> Callable[P, T]:
        @wraps(work)
        def work_or_fault(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return work(*args, **kwargs)
            except LeaseLost:
                raise
            except Exception as error:
                if not is_node_fault(error):
                    raise
                arguments = (*args, *kwargs.values())
                chunk = next(item for item in arguments if isinstance(item, pa.Table))
                key = str(chunk.column("chunk_key")[0].as_py())
                raise _named(as_node_fault(error), stage, key) from error

        return work_or_fault

    return decorate


def _named(fault: NodeFault, stage: str, chunk: str) -> NodeFault:
    named = NodeFault(f"{socket.gethostname()}, stage {stage}, chunk {chunk}: {fault.message}")
    named.node, named.chunk = _node_id(), chunk
    return named


def _node_id() -> str:
    """Ray's id of this machine; empty outside Ray."""
    # Not imported: a stage runs without Ray, too.
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return ""
    return str(ray.get_runtime_context().get_node_id())
