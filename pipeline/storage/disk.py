"""Temporary names, locks, links and flushes of files on a disk of this machine."""

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


def partial_path(target: Path) -> Path:
    """A new hidden path beside a file, to write its next version to."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}{PARTIAL}")


def delete_partials(target: Path) -> None:
    """Delete the partial files of writers of this file that were killed or came too late."""
    for partial in target.parent.glob(f".{target.name}.*{PARTIAL}"):
        partial.unlink(missing_ok=True)


@contextmanager
def file_lock(target: Path) -> Iterator[None]:
    """Lock the hidden lock file beside a file; the system unlocks it when the holder dies."""
    with target.with_name(f".{target.name}{_LOCK}").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def folder_lock(target: Path) -> Iterator[None]:
    """Lock the folder of a file, which leaves no lock file behind."""
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        with ExitStack() as stack:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:
                # Some network file systems lock only files that are open for writing.
                stack.enter_context(file_lock(target))
            yield
    finally:
        os.close(handle)


def links_to_ancestor(link: str) -> bool:
    """Whether a link leads to a folder that contains it, so that following it never ends."""
    return Path(link).resolve() in Path(link).parent.resolve().joinpath("x").parents


def rename_if_absent(partial: Path, target: Path) -> None:
    """Give a file its final name by a hard link. Raises: FileExistsError if the name is in use."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # The file system has no hard links; some network file systems do not.
        with file_lock(target):
            if target.exists():
                raise FileExistsError(errno.EEXIST, "exists already", str(target)) from error
            os.replace(partial, target)


def flush(path: Path) -> None:
    """Write the content to disk before the rename, so that a power cut leaves no empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
