"""The lease: it lets one driver at a time work on a run.

The lease is a small JSON file in the run's folder, which is taken, renewed and released by
conditional writes. Each holder's epoch is one higher than that of the holder before. A worker reads
the lease before it commits, the driver before each step that others see.

A holder that dies stops renewing. Another driver that wants the run watches the file: if it stays
unchanged for its time to live, by the clock of the watching driver, that driver takes the lease
over. Clocks of two machines are compared only for leases whose last renewal is minutes old.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from omnitrace_core.errors import LeaseHeld, LeaseLost, RunError
from pipeline.run_folder.lease_file import (
    LEASE,
    Claim,
    LeaseHolder,
    is_abandoned,
    is_this_process,
    read_lease,
    this_process,
)
from pipeline.storage.folder import Folder
from pipeline.storage.locks import LockTimeout

_POLL_S = 0.5
_RENEWALS = 3  # within one time to live
_RELEASE_WAIT_S = 2.0  # for a renewal that is under way when the lease is released

# Owners of the leases that this process holds.
_held_here: set[str] = set()

log = logging.getLogger(__name__)


def boot_clock() -> float:
    """Seconds since the machine was started, including the time it was asleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@contextmanager
def hold_lease(folder: Folder, ttl_s: float, *, take_over: bool = False) -> Iterator[Lease]:
    """Hold the run's lease while the block runs; a thread renews it.

    take_over: take it even from a holder that is alive.

    Raises:
        LeaseHeld: another process holds it, and is alive; or it is suspended while it holds the
            lock of the lease file.
        RunError: the lease file cannot be read.
    """
    try:
        lease = acquire_lease(folder, ttl_s, take_over=take_over)
    except LockTimeout as error:
        # It would have been taken now, but a process is suspended while it writes the lease file.
        raise LeaseHeld(str(error)) from error
    lease.start()
    try:
        yield lease
    finally:
        lease.release()


def acquire_lease(
    folder: Folder,
    ttl_s: float,
    *,
    take_over: bool = False,
    clock: Callable[[], float] = boot_clock,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Take the lease: at once if it is free, else when its holder was silent for its time to live.

    take_over: take it even from a holder that is alive. clock: seconds, never set back.

    Raises:
        LeaseHeld: its holder renewed it while we watched.
        RunError: the lease file cannot be read.
    """
    if not folder.is_conditional:
        log.warning("%s: its writes are not conditional; run one driver at a time", folder.root)
    watched: tuple[str, float] | None = None
    us = this_process(ttl_s)
    before: LeaseHolder | None = None
    while True:
        now = clock()
        found = read_lease(folder)
        if found is None:
            us, before = replace(us, epoch=1, earlier=()), None
            if folder.create(LEASE, us.as_bytes()):
                return Lease(folder, us, None, now, clock)
            continue
        holder, tag = found
        if holder.owner == us.owner:
            # We have it: our write was done, though its answer was lost.
            return Lease(folder, holder, tag, now, clock, predecessor=before)
        if take_over or _is_free(holder) or _is_silent(watched, tag, now, holder.ttl_s):
            us, before = us.taking_over_from(holder, time.time()), holder
            if (new_tag := folder.swap(LEASE, us.as_bytes(), tag)) is not None:
                if not holder.released:
                    log.warning("took the lease of %s over from %s", folder.root, holder)
                return Lease(folder, us, new_tag, now, clock, predecessor=holder)
            continue
        if watched is None:
            log.warning(
                "%s is held by %s; waiting up to %g s for it to renew the lease",
                folder.root,
                holder,
                holder.ttl_s,
            )
            # The silence counts from when the read ended: a store may take long to answer.
            watched = (tag, clock())
        elif watched[0] != tag:
            raise LeaseHeld(
                f"{folder.root} is being worked on by {holder}; let it finish, stop it, or take "
                "the run over with --break-lease"
            )
        sleep(min(_POLL_S, holder.ttl_s / 10))


def _is_free(holder: LeaseHolder) -> bool:
    """Whether the lease is free: it was released, or its holder has ended."""
    if holder.released:
        return True
    if is_this_process(holder):
        return holder.owner not in _held_here
    return is_abandoned(holder)


def _is_silent(watched: tuple[str, float] | None, tag: str, now: float, ttl_s: float) -> bool:
    """Whether the lease file has not changed for its time to live."""
    return watched is not None and watched[0] == tag and now - watched[1] > ttl_s


class Lease:
    """The lease while this process holds it.

    tag: of the lease file as we wrote it (None: not known yet). renewed: the time by `clock` just
    before the last renewal; a watching driver counts our silence from then on or from later.
    predecessor: the holder before us, if its lease file was there.
    """

    def __init__(
        self,
        folder: Folder,
        holder: LeaseHolder,
        tag: str | None,
        renewed: float,
        clock: Callable[[], float] = boot_clock,
        predecessor: LeaseHolder | None = None,
    ) -> None:
        self.predecessor = predecessor
        self._folder, self._holder, self._clock = folder, holder, clock
        self._tag, self._renewed = tag, renewed
        self._loss_reason = ""
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)

    @property
    def epoch(self) -> int:
        """Number of this holder among the run's holders: 1 for the first."""
        return self._holder.epoch

    @property
    def claim(self) -> Claim:
        """Identifies this holder to its workers."""
        return Claim(self._holder.epoch, self._holder.owner)

    def start(self) -> None:
        """Start the thread that renews it."""
        _held_here.add(self._holder.owner)
        self._thread.start()

    def check(self) -> None:
        """Check by the clock alone; enough for steps that nobody else sees.

        Raises:
            LeaseLost: another process may hold it by now, and it cannot be renewed.
        """
        silent_s = self._clock() - self._renewed
        if not self._loss_reason and silent_s > self._holder.ttl_s:
            # If our own version is still there, nobody held the lease in between.
            try:
                self.renew()
            except OSError as error:
                raise self._lease_lost(f"not renewed for {silent_s:.0f} s ({error})") from error
        if self._loss_reason:
            raise self._lease_lost(self._loss_reason)

    def confirm(self) -> None:
        """Read the lease file; called right before a step that others see.

        Raises:
            LeaseLost: another process holds it.
            OSError: the store does not answer.
        """
        self.check()
        found = read_lease(self._folder)
        if found is None or found[0].owner != self._holder.owner:
            self._loss_reason = f"it is held by {found[0]}" if found else "the lease file is gone"
            raise self._lease_lost(self._loss_reason)

    def _lease_lost(self, reason: str) -> LeaseLost:
        return LeaseLost(
            f"this process lost the lease of {self._folder.root}: {reason}. "
            "Committed chunks are kept; the same command continues the run"
        )

    def renew(self) -> None:
        """Write the lease file with the present time. Raises: OSError if the store fails."""
        with self._lock:
            if self._loss_reason or self._holder.released:
                return
            now = self._clock()
            holder = replace(self._holder, renewed_at=time.time())
            tag = self._swap(holder)
            if tag is None:
                self._loss_reason = f"it is held by {self._describe_successor()}"
                log.error("lost the lease of %s: %s", self._folder.root, self._loss_reason)
                return
            self._holder, self._tag, self._renewed = holder, tag, now

    def release(self) -> None:
        """Give the lease back, so that the next driver need not wait; no effect if it is lost."""
        self._stopped.set()
        _held_here.discard(self._holder.owner)
        # If the store delays a renewal, it ends by itself, and the next driver has to wait.
        if not self._lock.acquire(timeout=_RELEASE_WAIT_S):
            return
        try:
            if self._loss_reason or self._holder.released:
                return
            self._holder = replace(self._holder, renewed_at=time.time(), released=True)
            with suppress(OSError, RunError):
                self._swap(self._holder)
        finally:
            self._lock.release()

    def _swap(self, holder: LeaseHolder) -> str | None:
        """Replace our version of the lease file; returns the new tag, None if it is not ours."""
        if self._tag is None:
            found = read_lease(self._folder)
            if found is None or found[0].owner != holder.owner:
                return None
            self._tag = found[1]
        # A try that the store does not answer must leave time for another.
        within_s = holder.ttl_s / _RENEWALS / 2
        if (tag := self._folder.swap(LEASE, holder.as_bytes(), self._tag, within_s)) is not None:
            return tag
        # We still hold it if the swap was done and only its answer was lost.
        found = read_lease(self._folder)
        if found is None or found[0].owner != holder.owner:
            return None
        if found[0] == holder:
            return found[1]
        # The version is ours, written late by an earlier renewal that had timed out.
        return self._folder.swap(LEASE, holder.as_bytes(), found[1], within_s)

    def _keep_renewing(self) -> None:
        interval_s = self._holder.ttl_s / _RENEWALS
        due = self._clock() + interval_s
        while not self._stopped.wait(max(0.0, due - self._clock())):
            # The interval counts from the start of a renewal, however long that takes.
            due = self._clock() + interval_s
            try:
                self.renew()
            except Exception as error:  # noqa: BLE001  (the next renewal may succeed)
                log.warning("the lease of %s was not renewed: %r", self._folder.root, error)
            if self._loss_reason:
                return

    def _describe_successor(self) -> str:
        try:
            found = read_lease(self._folder)
        except (OSError, RunError) as error:
            return f"an unknown process ({error})"
        return str(found[0]) if found else "no process: the lease file was deleted"
