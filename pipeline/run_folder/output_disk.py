"""Tell a full disk of the output apart from a full disk of the machine that writes to it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from omnitrace_core.errors import RunError
from pipeline.storage.folder import Folder

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def output_errors(folder: Folder) -> Iterator[None]:
    """Raise that the disk of a local output is full as a RunError.

    No other machine can help then, so it is not a node fault. Elsewhere, files are written to a
    temporary file of the machine first, whose errors are node faults.
    """
    try:
        yield
    except OSError as error:
        if folder.is_local and error.errno in _DISK_ERRORS:
            raise RunError(
                f"the output cannot be written: {error}; make space there, then the same command "
                "continues the run"
            ) from error
        raise
