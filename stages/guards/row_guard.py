"""Turn a sample's failure into an error of that sample, so that its chunk goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from omnitrace_core.errors import FatalError, InternalError, OmniTraceError, SampleError

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
        FatalError: this process or run cannot go on; no sample is the cause.
    """
    try:
        return work()
    except FatalError:
        raise
    except SampleError as error:
        return as_row_error(stage, error)
    except Exception as error:  # the row guard is the only place that catches everything
        log.exception("%s: unexpected error in stage %s", row_key, stage)
        message = error.message if isinstance(error, OmniTraceError) else error
        return RowError(stage, INTERNAL, f"{type(error).__name__}: {message}")


def as_row_error(stage: str, error: SampleError) -> RowError:
    """The RowError of a sample error that was returned instead of raised."""
    return RowError(stage, error.code, error.message)
