"""Temporary names, links and flushes of files on a disk of this machine."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

from pipeline.storage.locks import file_lock

PARTIAL = ".partial"
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP})


def partial_path(target: Path) -> Path:
    """A new hidden path beside a file, to write its next version to."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}{PARTIAL}")


def new_partial(target: Path) -> Path:
    """Create the `partial_path` of a file, empty, and its folder if there is none.

    From then on, nobody who deletes empty folders can delete the folder.
    """
    for tries_left in (2, 1, 0):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(target)
        try:
            partial.touch()
            break
        except FileNotFoundError:
            # The folder was deleted between the two steps.
            if not tries_left:
                raise
    return partial


def delete_partials(target: Path) -> None:
    """Delete the partial files of writers of this file that were killed or came too late."""
    for partial in target.parent.glob(f".{target.name}.*{PARTIAL}"):
        partial.unlink(missing_ok=True)


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
