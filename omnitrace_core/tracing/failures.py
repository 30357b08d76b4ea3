"""Turn an unforeseen exception during the tracing of one sample into that sample's error."""

from __future__ import annotations

import logging

from omnitrace_core.errors import DeviceBroken, OutOfMemory, SampleError, TraceError
from omnitrace_core.printable import printable_traceback
from omnitrace_core.records import ReadySample
from omnitrace_core.runtime.node_faults import raise_if_node_fault

log = logging.getLogger(__name__)

# Parts of the messages by which torch and the CUDA libraries report that memory is short. They
# raise exceptions of several classes.
_OUT_OF_MEMORY_MESSAGES = ("out of memory", "ALLOC_FAILED", "can't allocate memory")


def as_sample_error(ready: ReadySample, n_prompt: int, error: Exception) -> SampleError:
    """The error of a sample that failed when it was traced alone.

    Raises:
        DeviceBroken: the exception shows that the device is broken.
        NodeFault: it shows that the machine lacks something.
    """
    where = f"sample {ready.sample.sample_id!r} ({n_prompt} prompt tokens)"
    if _is_out_of_memory(error):
        return OutOfMemory(f"{where} does not fit the device even alone; shorten it")
    raise_if_node_fault(error)
    if is_broken_device(error):
        raise DeviceBroken(f"{where}: the device is broken ({error})") from error
    log.error("%s failed\n%s", where, printable_traceback(error))
    return TraceError(f"{where}: {type(error).__name__}: {error}")


def is_broken_device(error: Exception) -> bool:
    """Whether the device's context is unusable, so that every later computation fails too."""
    return "CUDA error" in str(error) and not _is_out_of_memory(error)


def free_memory() -> None:
    """Give cached GPU memory back, so that a smaller batch can use it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        message in str(error) for message in _OUT_OF_MEMORY_MESSAGES
    )
