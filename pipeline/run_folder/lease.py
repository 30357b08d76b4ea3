"""One driver per run: a lease object that one process holds and renews, and others wait for.

The lease is a small JSON object in the run's folder, taken, renewed and given back by conditional
writes. Each holder raises its epoch by one; parts and manifests carry it. Workers ask the store
whose the run is before they commit, the driver before each step that others see. A holder that dies
stops renewing: whoever waits sees the object unchanged for the time to live, by his own clock, and
takes it over.

Nothing here compares two machines' clocks but for leases that were left minutes ago.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from omnitrace_core.errors import LeaseHeld, LeaseLost, RunError
from pipeline.storage.folder import Folder

LEASE = "_lease.json"
# A lease whose last renewal lies further back than its time to live and this is nobody's, even if
# two machines' clocks disagree by minutes.
_CLOCKS_APART_S = 300.0
_WATCH_S = 0.5
_RENEWALS = 3  # in a time to live
_HEARTBEAT_ENDS_S = 2.0  # what a renewal that is under way may take when the lease is given back

# Owners that are this very process, and at work.
_ours: set[str] = set()

log = logging.getLogger(__name__)


def awake_and_asleep() -> float:
    """Seconds since the machine was started, those that it slept included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Claim:
    """By what a worker knows its driver's lease."""

    epoch: int
    owner: str


@dataclass(frozen=True, slots=True)
class Holder:
    """What the lease object says.

    owner: random, one per taking. machine, started: the boot of the machine, and when on it the
    process began; empty where the system does not tell. renewed_at: seconds since 1970 by the
    holder's clock.
    """

    owner: str
    epoch: int
    host: str
    pid: int
    machine: str
    started: str
    ttl_s: float
    renewed_at: float
    released: bool = False

    def as_bytes(self) -> bytes:
        """The object's content."""
        return json.dumps(asdict(self), indent=1).encode()

    def __str__(self) -> str:
        ago = max(0.0, time.time() - self.renewed_at)
        return f"process {self.pid} on {self.host} (epoch {self.epoch}, renewed {ago:.0f} s ago)"


@contextmanager
def holding(folder: Folder, ttl_s: float, *, take: bool = False) -> Iterator[Lease]:
    """Hold the run's lease while the block runs; it is renewed behind the scenes.

    take: take it over from whoever has it.

    Raises:
        LeaseHeld: another process holds it, and is alive.
        RunError: the lease object cannot be read.
    """
    lease = acquire(folder, ttl_s, take=take)
    lease.start()
    try:
        yield lease
    finally:
        lease.release()


def acquire(
    folder: Folder,
    ttl_s: float,
    *,
    take: bool = False,
    clock: Callable[[], float] = awake_and_asleep,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Take the lease: at once if it is free, else when its holder has shown no life long enough.

    Raises:
        LeaseHeld: its holder renewed it while we watched.
        RunError: the lease object cannot be read.
    """
    if not folder.is_conditional:
        log.warning("%s: its writes are not conditional; run one driver at a time", folder.root)
    watched: tuple[str, float] | None = None
    mine = _myself(1, ttl_s)
    while True:
        asked = clock()
        found = _read(folder)
        if found is None:
            mine = replace(mine, epoch=1)
            if folder.create(LEASE, mine.as_bytes()):
                return Lease(folder, mine, None, asked, clock)
            continue
        holder, tag = found
        if holder.owner == mine.owner:
            # Taken after all: the store's answer to that was lost on its way.
            return Lease(folder, holder, tag, asked, clock)
        if take or _is_free(holder) or _is_silent(watched, tag, asked, holder.ttl_s):
            mine = replace(mine, epoch=holder.epoch + 1, renewed_at=time.time())
            if (new := folder.swap(LEASE, mine.as_bytes(), tag)) is not None:
                if not holder.released:
                    log.warning("took the lease of %s over from %s", folder.root, holder)
                return Lease(folder, mine, new, asked, clock)
            continue
        if watched is None:
            log.warning(
                "%s is held by %s; waiting up to %g s for a sign of life",
                folder.root,
                holder,
                holder.ttl_s,
            )
            # Its silence counts from when it was read, which a store may take long to answer.
            watched = (tag, clock())
        elif watched[0] != tag:
            raise LeaseHeld(
                f"{folder.root} is being worked on by {holder}; let it finish, stop it, or take "
                "the run over with --break-lease"
            )
        sleep(min(_WATCH_S, holder.ttl_s / 10))


class Lease:
    """The lease while we hold it.

    tag: of the object as we wrote it (None: to be read). renewed: when that was asked for, by
    `clock`, which is what others may at the latest count from.
    """

    def __init__(
        self,
        folder: Folder,
        holder: Holder,
        tag: str | None,
        renewed: float,
        clock: Callable[[], float] = awake_and_asleep,
    ) -> None:
        self._folder, self._holder, self._clock = folder, holder, clock
        self._tag, self._renewed = tag, renewed
        self._lost = ""
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    @property
    def epoch(self) -> int:
        """Which holder of the run we are: 1 for the first."""
        return self._holder.epoch

    @property
    def claim(self) -> Claim:
        """What workers are given."""
        return Claim(self._holder.epoch, self._holder.owner)

    def start(self) -> None:
        """Begin to renew it from a thread of its own."""
        _ours.add(self._holder.owner)
        self._thread.start()

    def check(self) -> None:
        """Look without asking the store, for what nobody else sees.

        Raises:
            LeaseLost: others may hold it by now, and it cannot be renewed.
        """
        silent_s = self._clock() - self._renewed
        if not self._lost and silent_s > self._holder.ttl_s:
            # That our own version is still there proves that nobody held it in between.
            try:
                self.renew()
            except OSError as error:
                raise self._loss(f"not renewed for {silent_s:.0f} s ({error})") from error
        if self._lost:
            raise self._loss(self._lost)

    def confirm(self) -> None:
        """Ask the store, right before a step that others see.

        Raises:
            LeaseLost: another process holds it.
            OSError: the store does not answer.
        """
        self.check()
        found = _read(self._folder)
        if found is None or found[0].owner != self._holder.owner:
            self._lost = f"it is held by {found[0]}" if found else "the lease object is gone"
            raise self._loss(self._lost)

    def _loss(self, reason: str) -> LeaseLost:
        return LeaseLost(
            f"this process lost the lease of {self._folder.root}: {reason}. What is committed "
            "stays; the same command goes on where the run stands"
        )

    def renew(self) -> None:
        """Write the object anew. Raises: OSError if the storage does not answer."""
        with self._guard:
            if self._lost or self._holder.released:
                return
            asked = self._clock()
            holder = replace(self._holder, renewed_at=time.time())
            tag = self._swap(holder)
            if tag is None:
                self._lost = f"it is held by {self._successor()}"
                log.error("lost the lease of %s: %s", self._folder.root, self._lost)
                return
            self._holder, self._tag, self._renewed = holder, tag, asked

    def release(self) -> None:
        """Give it back, so that the next driver need not wait. Does nothing if it is lost."""
        self._ended.set()
        _ours.discard(self._holder.owner)
        # A renewal that the store lets wait ends by itself; the next driver waits for it, then.
        if not self._guard.acquire(timeout=_HEARTBEAT_ENDS_S):
            return
        try:
            if self._lost or self._holder.released:
                return
            self._holder = replace(self._holder, renewed_at=time.time(), released=True)
            with suppress(OSError, RunError):
                self._swap(self._holder)
        finally:
            self._guard.release()

    def _swap(self, holder: Holder) -> str | None:
        if self._tag is None:
            found = _read(self._folder)
            if found is None or found[0].owner != holder.owner:
                return None
            self._tag = found[1]
        # One that the store does not answer must leave time for another.
        within_s = holder.ttl_s / _RENEWALS / 2
        if (tag := self._folder.swap(LEASE, holder.as_bytes(), self._tag, within_s)) is not None:
            return tag
        # Where the answer to a swap that happened is lost, we hold it still.
        found = _read(self._folder)
        if found is None or found[0].owner != holder.owner:
            return None
        if found[0] == holder:
            return found[1]
        # It was an earlier one, of a heartbeat that was given up.
        return self._folder.swap(LEASE, holder.as_bytes(), found[1], within_s)

    def _beat(self) -> None:
        every_s = self._holder.ttl_s / _RENEWALS
        due = self._clock() + every_s
        while not self._ended.wait(max(0.0, due - self._clock())):
            # Counted from its begin, however long it takes.
            due = self._clock() + every_s
            try:
                self.renew()
            except Exception as error:  # noqa: BLE001  (it may work the next time)
                log.warning("the lease of %s was not renewed: %r", self._folder.root, error)
            if self._lost:
                return

    def _successor(self) -> str:
        try:
            found = _read(self._folder)
        except (OSError, RunError) as error:
            return f"nobody knows whom ({error})"
        return str(found[0]) if found else "nobody: the lease object is gone"


def check_claim(folder: Folder, claim: Claim) -> None:
    """What a worker asks before it begins, and before it commits.

    Raises:
        LeaseLost: the run has another driver than ours.
    """
    found = _read(folder)
    if found is not None and found[0].owner == claim.owner and not found[0].released:
        return
    now = f"held by {found[0]}" if found else "gone"
    raise LeaseLost(
        f"a worker of epoch {claim.epoch} may not commit to {folder.root}: its lease is {now}"
    )


def claim_of(folder: Folder) -> Claim:
    """Of whoever holds the lease now. Raises: LeaseLost if nobody does."""
    found = _read(folder)
    if found is None or found[0].released:
        raise LeaseLost(f"nobody holds the lease of {folder.root}")
    return Claim(found[0].epoch, found[0].owner)


def _read(folder: Folder) -> tuple[Holder, str] | None:
    try:
        content, tag = folder.read_tagged(LEASE)
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(content)), tag
    except (ValueError, TypeError) as error:
        raise RunError(
            f"{folder.url(LEASE)} is not a lease ({error}); if no other driver is at work, "
            "delete it and run again"
        ) from error


def _myself(epoch: int, ttl_s: float) -> Holder:
    return Holder(
        owner=uuid.uuid4().hex,
        epoch=epoch,
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=_machine(),
        started=_started(os.getpid()) or "",
        ttl_s=ttl_s,
        renewed_at=time.time(),
    )


def _is_free(holder: Holder) -> bool:
    """Whether nobody can hold it: given back, its process is dead, or it was left long ago."""
    if holder.released:
        return True
    if holder.machine and holder.machine == _machine():
        started = _started(holder.pid)
        if holder.pid == os.getpid() and holder.started == started:
            return holder.owner not in _ours
        # None: it is hidden from us, and may live.
        return started is not None and started != holder.started
    return time.time() - holder.renewed_at > holder.ttl_s + _CLOCKS_APART_S


def _is_silent(watched: tuple[str, float] | None, tag: str, now: float, ttl_s: float) -> bool:
    """Whether it stayed as it is for its time to live."""
    return watched is not None and watched[0] == tag and now - watched[1] > ttl_s


def _machine() -> str:
    """This boot of this machine, and which of its process ids we see; empty if it does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the boot; empty: there is none; None: not told."""
    try:
        # Behind the name in brackets, which may hold anything: the state, then 18 more fields.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError:
        return None
    return "" if fields[0] == "Z" else fields[19]
