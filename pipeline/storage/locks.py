"""Locks between processes of this machine, with a bound: a holder may be suspended for ever.

The system unlocks a file when its holder ends, but not when the holder is suspended (SIGSTOP, a
debugger, a disk that does not answer). So nobody waits for a lock without a limit.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# A lock is held for a comparison and a rename, so a wait of this length means a suspended holder.
LOCK_WAIT_S = 30.0
_WARN_AFTER_S = 3.0
_POLL_S = 0.002
_LONGEST_POLL_S = 0.1
_LOCK = ".lock"
_BUSY = frozenset({errno.EAGAIN, errno.EACCES})

log = logging.getLogger(__name__)


class LockTimeout(TimeoutError):
    """Another process held a lock for longer than we may wait."""


@contextmanager
def file_lock(target: Path, within_s: float | None = None) -> Iterator[None]:
    """Lock the hidden lock file beside a file; the system unlocks it when the holder dies.

    within_s: limit for the wait; by default LOCK_WAIT_S.

    Raises:
        LockTimeout: another process holds the lock for longer.
    """
    path = target.with_name(f".{target.name}{_LOCK}")
    with path.open("ab") as lock:
        _lock(lock.fileno(), path, within_s)
        yield


@contextmanager
def folder_lock(target: Path, within_s: float | None = None) -> Iterator[None]:
    """Lock the folder of a file, which leaves no lock file behind.

    Raises:
        LockTimeout: as `file_lock`.
    """
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        with ExitStack() as stack:
            try:
                _lock(handle, target.parent, within_s)
            except LockTimeout:
                raise
            except OSError:
                # Some network file systems lock only files that are open for writing.
                stack.enter_context(file_lock(target, within_s))
            yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, within_s: float | None) -> None:
    limit_s = LOCK_WAIT_S if within_s is None else min(within_s, LOCK_WAIT_S)
    began, pause_s, warned = time.monotonic(), _POLL_S, False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in _BUSY:
                raise
        waited_s = time.monotonic() - began
        if waited_s >= limit_s:
            raise LockTimeout(
                f"{path} is locked by {describe_holder(path)} for more than {limit_s:g} s; resume "
                "or end that process, and run the same command again"
            )
        if waited_s >= _WARN_AFTER_S and not warned:
            warned = True
            log.warning("waiting for %s, which is locked by %s", path, describe_holder(path))
        time.sleep(min(pause_s, max(0.0, limit_s - waited_s)))
        pause_s = min(2 * pause_s, _LONGEST_POLL_S)


def describe_holder(path: Path) -> str:
    """The process that holds the lock of a file or folder, as far as /proc says."""
    pid = _holder_pid(path)
    if not pid:
        return "another process (unknown: /proc does not name it)"
    command = _proc(pid, "cmdline").replace("\0", " ").strip() or "unknown command"
    state = _proc(pid, "stat").rpartition(")")[2].split()
    suspended = ", suspended" if state[:1] in (["T"], ["t"]) else ""
    return f"process {pid} ({command[:80]}{suspended})"


def _holder_pid(path: Path) -> int:
    """0 if it is unknown: another machine or namespace, or no /proc."""
    try:
        inode = path.stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        # 1: FLOCK  ADVISORY  WRITE 29720 fe:00:2147808 0 EOF; "->" before FLOCK: it waits.
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return max(0, int(fields[4]))
    return 0


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""
