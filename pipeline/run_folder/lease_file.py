"""The lease file of a run: who holds the lease, and what a worker may do under it."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from omnitrace_core.errors import LeaseLost, RunError
from pipeline.from_json import from_json
from pipeline.storage.folder import Folder

LEASE = "_lease.json"
# How far apart two machines' clocks may be. A lease of another machine counts as abandoned when it
# was last renewed longer ago than its time to live and this.
_CLOCK_SKEW_S = 300.0
_MAX_EARLIER = 200  # earlier holders in the file


@dataclass(frozen=True, slots=True)
class Claim:
    """Identifies the driver a worker commits for; compared with the lease before each commit."""

    epoch: int
    owner: str


@dataclass(frozen=True, slots=True)
class HeldSpell:
    """How long an earlier holder had the lease. Both times in seconds since 1970, by its clock."""

    epoch: int
    taken_at: float
    renewed_at: float

    @property
    def seconds(self) -> float:
        """From taking the lease to its last renewal or release."""
        return max(0.0, self.renewed_at - self.taken_at)


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """The content of the lease file.

    owner: random, new each time the lease is taken. epoch: 1 for the run's first holder, one more
    for each next one. machine: identifies the boot of the machine and the process namespace.
    started: when the process began, in ticks since that boot. Both are empty if the system does not
    provide them. renewed_at: seconds since 1970 by the holder's clock. released: the holder
    no longer needs the lease. taken_at: when it took it; 0 in files of older versions. earlier: the
    last holders before it, oldest first.
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
    taken_at: float = 0.0
    earlier: tuple[HeldSpell, ...] = ()

    def taking_over_from(self, holder: LeaseHolder, now: float) -> LeaseHolder:
        """This holder as the next one after another. now: seconds since 1970."""
        earlier = holder.spells[-_MAX_EARLIER:]
        return replace(self, epoch=holder.epoch + 1, taken_at=now, renewed_at=now, earlier=earlier)

    @property
    def spells(self) -> tuple[HeldSpell, ...]:
        """Of the last holders and of this one; without those of older versions."""
        if not self.taken_at:
            return self.earlier
        return (*self.earlier, HeldSpell(self.epoch, self.taken_at, self.renewed_at))

    def as_bytes(self) -> bytes:
        """The JSON that is stored."""
        return json.dumps(asdict(self), indent=1).encode()

    def __str__(self) -> str:
        ago_s = max(0.0, time.time() - self.renewed_at)
        return f"process {self.pid} on {self.host} (epoch {self.epoch}, renewed {ago_s:.0f} s ago)"


def read_lease(folder: Folder) -> tuple[LeaseHolder, str] | None:
    """The lease's holder and the tag of this version of the file; None if there is no lease file.

    Raises:
        RunError: the file is not a lease.
    """
    try:
        content, tag = folder.read_tagged(LEASE)
    except FileNotFoundError:
        return None
    try:
        return from_json(LeaseHolder, json.loads(content)), tag
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{folder.url(LEASE)} is not a lease ({error}); if no other driver is running, "
            "delete it and run again"
        ) from error


def is_held(folder: Folder) -> bool:
    """Whether a driver holds the lease, or died while it did. Raises: RunError, as `read_lease`."""
    found = read_lease(folder)
    return found is not None and not found[0].released


def check_claim(folder: Folder, claim: Claim) -> None:
    """Check that the worker's driver holds the lease; called before a chunk and before its commit.

    Raises:
        LeaseLost: another driver holds the lease, or none does.
    """
    found = read_lease(folder)
    if found is not None and found[0].owner == claim.owner and not found[0].released:
        return
    state = f"held by {found[0]}" if found else "gone"
    raise LeaseLost(
        f"a worker of epoch {claim.epoch} may not commit to {folder.root}: its lease is {state}"
    )


def current_claim(folder: Folder) -> Claim:
    """The claim of the driver that holds the lease now.

    Raises:
        LeaseLost: it is not held.
    """
    found = read_lease(folder)
    if found is None or found[0].released:
        raise LeaseLost(f"the lease of {folder.root} is not held")
    return Claim(found[0].epoch, found[0].owner)


def this_process(ttl_s: float) -> LeaseHolder:
    """This process as the run's first holder, with a new owner."""
    now = time.time()
    return LeaseHolder(
        owner=uuid.uuid4().hex,
        epoch=1,
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=_machine(),
        started=_process_start(os.getpid()) or "",
        ttl_s=ttl_s,
        renewed_at=now,
        taken_at=now,
    )


def is_this_process(holder: LeaseHolder) -> bool:
    """Whether the holder is this very process, and not an earlier one with its process id."""
    return (
        bool(holder.machine)
        and (holder.machine, holder.pid) == (_machine(), os.getpid())
        and holder.started == _process_start(os.getpid())
    )


def is_abandoned(holder: LeaseHolder) -> bool:
    """Whether the holder can no longer be running: its process is dead or was silent for long."""
    if holder.machine and holder.machine == _machine():
        started = _process_start(holder.pid)
        # None: the process is hidden from us, and may be alive.
        return started is not None and started != holder.started
    return time.time() - holder.renewed_at > holder.ttl_s + _CLOCK_SKEW_S


def _machine() -> str:
    """Identifies this boot of this machine and our process namespace; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """When a process began, in ticks since the boot; empty: no such process; None: unknown."""
    try:
        # After the name in brackets, which may hold anything: the state, then 18 more fields.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError:
        return None
    return "" if fields[0] == "Z" else fields[19]
