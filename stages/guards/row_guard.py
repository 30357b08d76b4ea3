"""Turn a sample's failure into an error of that sample, so that its chunk goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from omnitrace_core.addresses import scrub
from omnitrace_core.errors import FatalError, InternalError, OmniTraceError, SampleError
from omnitrace_core.printable import printable_traceback
from omnitrace_core.runtime.node_faults import raise_if_node_fault

T = TypeVar("T")
log = logging.getLogger(__name__)

INTERNAL = InternalError.code


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a sample failed: the stage it failed in, a stable code, and the message."""

    stage: str
    code: str
    message: str


def guarded(stage: str, row_key: str, work: Callable[[], T]) -> T | RowError:
    """Call `work` for one sample and return its result, or its failure as a RowError.

    A SampleError keeps its code. Any other exception is a fault of this program: it is logged with
    its traceback and recorded with the code `internal`, so that one sample cannot end the run.

    Raises:
        NodeFault: the machine is the cause, whatever error reports it.
        FatalError: this process or run cannot go on; no sample is the cause.
    """
    try:
        return work()
    except FatalError:
        raise
    except Exception as error:  # noqa: BLE001 - the only place that catches everything
        if isinstance(error, SampleError):
            return as_row_error(stage, error)
        raise_if_node_fault(error)
        trace = scrub(printable_traceback(error))
        log.error("%s: unexpected error in stage %s\n%s", row_key, stage, trace)
        message = error.message if isinstance(error, OmniTraceError) else str(error)
        return RowError(stage, INTERNAL, f"{type(error).__name__}: {scrub(message)}")


def as_row_error(stage: str, error: SampleError) -> RowError:
    """The RowError of a sample error.

    Raises:
        NodeFault: the machine is the cause of the error.
    """
    raise_if_node_fault(error)
    return RowError(stage, error.code, error.message)
