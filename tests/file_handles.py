"""Take all free file handles from the process of a test."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

_N_STANDARD_STREAMS = 3


@contextmanager
def no_file_handles() -> Iterator[None]:
    """Within this block, the process can open no file; what is open stays usable.

    The limit is not 0: `poll` fails when it is given more files than the limit, and threads of
    other fixtures (a server) wait with it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_N_STANDARD_STREAMS, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
