"""The row guard: one sample's failure becomes that sample's error, never the chunk's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from omnitrace_core.errors import FatalError, SampleError

T = TypeVar("T")
log = logging.getLogger(__name__)

INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row could not be done: the stage it failed in, a stable code, and the message."""

    stage: str
    code: str
    message: str


def guarded(stage: str, row_key: str, work: Callable[[], T]) -> T | RowError:
    """Do `work` for one row; its failure is returned as a value.

    A SampleError keeps its code. Any other exception is a fault of ours: it is logged with its
    traceback and recorded under the code `internal`, so that one odd row cannot cost the run.

    Raises:
        FatalError: this process or run cannot go on; no row is to blame.
    """
    try:
        return work()
    except FatalError:
        raise
    except SampleError as error:
        return as_row_error(stage, error)
    except Exception as error:  # the row guard, and the only place to be this broad
        log.exception("%s: unexpected error in stage %s", row_key, stage)
        return RowError(stage, INTERNAL, f"{type(error).__name__}: {error}")


def as_row_error(stage: str, error: SampleError) -> RowError:
    """The row error of a sample error that was handed over as a value."""
    return RowError(stage, error.code, str(error))
