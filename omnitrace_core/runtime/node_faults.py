"""Which errors speak of the machine they were met on, and not of the sample in work.

A full disk or a process without file handles fails every sample alike, and another machine may
have what is missing. `is_node_fault` is the only place that decides this. Nothing that a sample
says, and no limit that the config sets for a sample, counts as the machine's fault:

    the machine's                            the sample's
    disk full, over quota, read-only         a file above media.max_bytes: media_too_large
    a temporary file that cannot be written  its own file cannot be read (EIO): media_error
    no file handles                          a store that does not answer: media_unavailable
    a lost mount (ESTALE, ENOTCONN, EIO),
    by which no file can be read
    no process or thread can be started      a decoder above media.decode_memory_mib, or any
                                             MemoryError, since it depends on the sample's size:
                                             media_memory, out_of_memory
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from omnitrace_core.errors import NodeFault, OmniTraceError, RunError

_ERRNOS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
# The file system answers, and says that the folder is not there or is not for this process.
_NO_SUCH_FOLDER = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EACCES, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP),
    }
)
# What importlib and cffi say when the dynamic loader gets no file handle: only its own words, at
# the end, because other messages quote addresses that samples give.
_LOADER = re.compile(
    r"(?:cannot open shared object file|failed to map segment from shared object|"
    r"cannot create shared object descriptor): Too many open files(?: in system)?$"
)
# What FFmpeg says through decord. By this name media are opened, so no sample can write the rest.
_DECORD = re.compile(r"ERROR opening: /proc/self/fd/\d+, Too many open files")
_NO_FOLDER = "No usable temporary directory found"  # tempfile
# Of threading, and of the C++ library through decord.
_NO_THREAD = frozenset({"can't start new thread", "Resource temporarily unavailable"})
_DOUBTED = "_omnitrace_text_is_doubted"  # attribute of errors
_REMEDIES = {
    errno.EMFILE: "raise the limit of open files (ulimit -n; in a run, that of Ray's workers)",
    errno.ENFILE: "raise the limit of open files of the system (fs.file-max)",
    errno.ENOMEM: "run fewer actors on the machine, or give it more memory",
    errno.EROFS: "check the disk: it may have failed and be mounted read-only",
}
_FREE_SPACE = "free space there, or set TMPDIR to a folder with space"
_ANY_REMEDY = "see what else uses the machine, and the limits of its processes (ulimit -a)"


def is_node_fault(error: BaseException) -> bool:
    """Whether the machine, and not the sample, is the reason of an error or of its causes."""
    return node_fault_in(error) is not None


def node_fault_in(error: BaseException) -> BaseException | None:
    """The error among this one and its causes that speaks of the machine; None if none does."""
    return next((cause for cause in _with_causes(error) if _speaks_of_machine(cause)), None)


def doubt_texts(error: BaseException) -> None:
    """Judge an error and its causes by their kind and number alone from now on.

    For errors of a store's client: their texts may quote a key, which a sample gives.
    """
    for cause in _with_causes(error):
        setattr(cause, _DOUBTED, True)


def as_node_fault(error: BaseException) -> NodeFault:
    """A node fault as NodeFault: itself, or one that says what is missing and what can be done."""
    found = node_fault_in(error) or error
    if isinstance(found, NodeFault):
        return found
    what = found.message if isinstance(found, OmniTraceError) else str(found)
    return NodeFault(f"{what or type(found).__name__}; {_remedy(found)}")


def raise_if_node_fault(error: BaseException) -> None:
    """Raise a node fault that is behind an error. Raises: NodeFault."""
    found = node_fault_in(error)
    if isinstance(found, NodeFault):
        # Without `from`: the error may be caused by it, and causes must not form a circle.
        raise found
    if found is not None:
        raise as_node_fault(found) from error


@contextmanager
def temporary_files(remedy: str = _FREE_SPACE) -> Iterator[None]:
    """Raise any OSError of the block, which works on temporary files alone, as a NodeFault."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OmniTraceError):
            raise
        raise NodeFault(
            f"a temporary file in {_folder()} cannot be written: {error}; {remedy}"
        ) from error


def check_handles() -> None:
    """Check that this process can open another file, for calls that hide why they fail.

    The system's resolver reports missing file handles as a name that cannot be resolved.

    Raises:
        NodeFault: it cannot.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise_if_node_fault(error)


def check_mount(path: str | os.PathLike[str]) -> None:
    """Check that the file system of a local file answers, when the file could not be read.

    A lost mount (of NFS, of a FUSE program that ended) fails every file alike, and another machine
    may have it. The errors are also those of single files, so the folder's file system is asked:
    what it answers is not cached.

    Raises:
        NodeFault: it does not.
    """
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.statvfs(folder)
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) or error.errno in _NO_SUCH_FOLDER:
            return
        raise NodeFault(
            f"the file system of {folder} does not answer on this machine: {error.strerror}; "
            "mount it again"
        ) from error


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    # A RunError may have a full disk as its cause: that of the output, which all machines share.
    while cause is not None and id(cause) not in seen and not isinstance(cause, RunError):
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _speaks_of_machine(error: BaseException) -> bool:
    if isinstance(error, NodeFault):
        return True
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    is_doubted = hasattr(error, _DOUBTED)
    if isinstance(error, FileNotFoundError):
        has_words = str(error.strerror).startswith(_NO_FOLDER)
        return has_words and not (is_doubted and _has_folder())
    text = str(error)
    if type(error) is OSError:
        return not is_doubted and error.errno is None and bool(_LOADER.search(text))
    if isinstance(error, ImportError):
        return bool(_LOADER.search(text))
    is_decord = type(error).__module__.startswith("decord")
    if text in _NO_THREAD and (is_decord or type(error) is RuntimeError):
        return not _can_start_thread()
    return is_decord and bool(_DECORD.search(text))


def _can_start_thread() -> bool:
    """Whether a thread can be started now.

    If so, most likely the memory of the sample, which is free again, was in the way of the other.
    """
    thread = threading.Thread(target=lambda: None, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def _remedy(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return _FREE_SPACE
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"{_FREE_SPACE} (now {_folder()})"
    return _REMEDIES.get(number or 0, _ANY_REMEDY)


def _has_folder() -> bool:
    try:
        tempfile.gettempdir()
    except OSError:
        return False
    return True


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return os.environ.get("TMPDIR", "the temporary folder")
