"""What speech libraries change of the process that they run in, put back."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import warnings
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def preserve_process_state(threads: int, package: str) -> Iterator[io.StringIO]:
    """torch on `threads` threads inside; threads, seeds and root logging as before afterwards.

    Yields what is printed inside. package: the library, whose log lines below ERROR are dropped,
    and whose deprecations are not ours to mend.
    """
    import torch

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    n_threads = torch.get_num_threads()
    seeds = random.getstate(), np.random.get_state()

    def quiet(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or f"/{package}/" not in record.pathname

    printed = io.StringIO()
    root.addFilter(quiet)
    torch.set_num_threads(threads)
    try:
        with (
            # Without its devices: asking every GPU for its state would open a context on each.
            torch.random.fork_rng(devices=[]),
            contextlib.redirect_stdout(printed),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield printed
    finally:
        random.setstate(seeds[0])
        np.random.set_state(seeds[1])
        torch.set_num_threads(n_threads)
        root.removeFilter(quiet)
        root.handlers[:] = handlers
        root.setLevel(level)
