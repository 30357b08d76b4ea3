"""Undo what speech libraries change in the process: threads, random seeds, logging."""

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
    """Use `threads` torch threads inside; restore threads, seeds and root logging afterwards.

    package: the library. Its log lines below ERROR are dropped, and its warnings, which cannot be
    fixed here, are ignored. Yields the text that is printed meanwhile.
    """
    import torch

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    n_threads = torch.get_num_threads()
    seeds = random.getstate(), np.random.get_state()

    def keep(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or f"/{package}/" not in record.pathname

    printed = io.StringIO()
    root.addFilter(keep)
    torch.set_num_threads(threads)
    try:
        with (
            # No devices: reading the state of every GPU would open a context on each.
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
        root.removeFilter(keep)
        root.handlers[:] = handlers
        root.setLevel(level)
