"""Names, locks and flushes of files on a disk of this machine."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PARTIAL = ".partial"
_LOCK = ".lock"
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP})


def neighbour(target: Path) -> Path:
    """Where to write what becomes this file."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}{PARTIAL}")


def sweep(target: Path) -> None:
    """Delete what writers of this file left that were killed, or that have come too late."""
    for left in target.parent.glob(f".{target.name}.*{PARTIAL}"):
        left.unlink(missing_ok=True)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the hidden lock file beside a file; the system lets go of it when a holder dies."""
    with target.with_name(f".{target.name}{_LOCK}").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def folder_locked(target: Path) -> Iterator[None]:
    """Hold the folder that a file is in, which leaves no lock file behind."""
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        with ExitStack() as held:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:
                # Of network file systems, some lock only what is open for writing.
                held.enter_context(locked(target))
            yield
    finally:
        os.close(handle)


def is_above(link: str) -> bool:
    """Whether a link leads to a folder that it lies in, and so in a circle."""
    return Path(link).resolve() in Path(link).parent.resolve().joinpath("x").parents


def link(partial: Path, target: Path) -> None:
    """Give a file its name if the name is free. Raises: FileExistsError."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A disk without hard links, such as some that are mounted from elsewhere.
        with locked(target):
            if target.exists():
                raise FileExistsError(errno.EEXIST, "is there already", str(target)) from error
            os.replace(partial, target)


def flush(path: Path) -> None:
    """Put the content on disk before its name, so that a power cut cannot leave an empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
