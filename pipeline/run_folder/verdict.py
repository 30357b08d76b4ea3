"""The verdict on a run, made from its manifests: what is done, what failed, and the exit code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from omnitrace_core.errors import (
    ConfigError,
    InputSchemaError,
    LeaseHeld,
    LeaseLost,
    RunError,
    UnknownName,
)
from pipeline.planning.plan import Plan, Shard
from pipeline.run_folder.manifests import Manifest
from pipeline.storage.folder import Folder

if TYPE_CHECKING:
    from pipeline.config import RunConfig

VERDICT = "verdict.json"


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    CRASH = 1
    USAGE = 2
    INCOMPLETE = 4


def exit_code_of(error: Exception) -> Exit:
    """Usage: what the user set or handed in. Incomplete: another driver's run. Else a crash."""
    if isinstance(error, LeaseHeld | LeaseLost):
        return Exit.INCOMPLETE
    usage = isinstance(error, ConfigError | InputSchemaError | UnknownName)
    return Exit.USAGE if usage else Exit.CRASH


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ended before its time. early: for too many errors."""

    exit_code: Exit
    reason: str
    early: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run stands.

    finished: every input row is published. exit_code: null while the run is going on. plan: hash of
    the input and settings it speaks of. inputs: hash of what a listing of the input tells. tables:
    files and rows of each. stopped_early: this driver or one before it ended for too many errors.
    epoch: the driver that says so.
    """

    run_id: str
    plan: str
    finished: bool
    exit_code: int | None
    reason: str
    n_rows: int
    n_ok: int
    n_error: int
    n_spans: int
    by_code: dict[str, int]
    by_stage: dict[str, int]
    n_shards: int
    n_published: int
    inputs: str = ""
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    stopped_early: bool = False
    epoch: int = field(default=0, compare=False)


class Work(Protocol):
    """A run, or a run that is curated again: what it is to publish, and what it has."""

    @property
    def run_id(self) -> str: ...
    @property
    def config(self) -> RunConfig: ...
    @property
    def folder(self) -> Folder: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def manifests(self) -> dict[str, Manifest]: ...
    def is_published(self, shard: Shard) -> bool: ...


def is_finished(work: Work) -> bool:
    """Whether all of its plan was done earlier, and cleared up behind."""
    published = all(work.is_published(shard) for shard in work.plan.shards)
    return published and finished_plan(work.folder) == work.plan.digest


def judge(work: Work, stopped: Stop | None = None) -> Verdict:
    """The verdict from the manifests of the plan's shards; others do not count.

    Raises:
        RunError: the rows that were published are not the rows of the input.
    """
    plan = work.plan
    keys = {shard.key for shard in plan.shards}
    final = [manifest for manifest in work.manifests.values() if manifest.key in keys]
    n_rows, n_ok, n_error = (
        sum(getattr(item, name) for item in final) for name in ("n_rows", "n_ok", "n_error")
    )
    finished = len(final) == len(plan.shards)
    if finished and (n_rows != plan.n_rows or n_ok + n_error != n_rows):
        raise RunError(
            f"{plan.n_rows} rows went in, {n_ok} ok and {n_error} error rows came out; "
            "this is a fault of the pipeline, please report it"
        )
    limit = work.config.run.max_error_fraction
    exit_code, reason = decide(finished, n_error, n_rows, limit, stopped)
    return Verdict(
        run_id=work.run_id,
        plan=plan.digest,
        finished=finished,
        exit_code=exit_code,
        reason=reason,
        n_rows=n_rows,
        n_ok=n_ok,
        n_error=n_error,
        n_spans=sum(item.n_spans for item in final),
        by_code=_total(item.by_code for item in final),
        by_stage=_total(item.by_stage for item in final),
        n_shards=len(plan.shards),
        n_published=len(final),
        inputs=plan.inputs,
        tables=_tables(final),
        stopped_early=stopped is not None and stopped.early,
    )


def unfinished(verdict: Verdict, stop: Stop | None = None) -> Verdict:
    """The verdict of a run that has not come to its end, though all may be published."""
    exit_code, reason = decide(False, 0, 0, 0.0, stop)
    return replace(verdict, finished=False, exit_code=exit_code, reason=reason)


def decide(
    finished: bool,
    n_error: int,
    n_rows: int,
    max_error_fraction: float,
    stopped: Stop | None = None,
) -> tuple[int | None, str]:
    """Exit code (null while the run goes on) and reason."""
    if stopped is not None:
        return stopped.exit_code, stopped.reason
    if not finished:
        return None, "going on"
    if n_rows and n_error / n_rows > max_error_fraction:
        return Exit.INCOMPLETE, (
            f"{n_error} of {n_rows} rows are errors, above "
            f"run.max_error_fraction={max_error_fraction}"
        )
    return Exit.DONE, "done"


def _tables(final: Iterable[Manifest]) -> dict[str, dict[str, int]]:
    tables: dict[str, dict[str, int]] = {}
    for manifest in final:
        for name, n_rows in manifest.files.items():
            table = tables.setdefault(name.partition("/")[0], {"files": 0, "rows": 0})
            table["files"] += 1
            table["rows"] += n_rows
    return tables


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


class VerdictFile:
    """verdict.json, for the driver that holds the run's lease as its `epoch`.

    stopped_early: it was said when this was made, and is until the run is finished: whoever goes on
    after that may be stopped himself before he comes to it again.

    Made when the lease is taken; each write replaces only what was there then, or what we wrote
    since. So a driver that sleeps while another takes the run over cannot spoil its verdict.
    """

    def __init__(self, folder: Folder, epoch: int) -> None:
        self._folder, self._epoch = folder, epoch
        self._version = folder.version(VERDICT)
        self.stopped_early = bool((read_verdict(folder) or {}).get("stopped_early"))

    def write(self, verdict: Verdict) -> Verdict:
        """Replace it; returns what it says now, of the drivers before us as well.

        Raises:
            LeaseLost: somebody else wrote it meanwhile.
        """
        stopped_early = not verdict.finished and (verdict.stopped_early or self.stopped_early)
        told = replace(verdict, epoch=self._epoch, stopped_early=stopped_early)
        try:
            self._write(told)
        except FileExistsError as error:
            # What interrupts us can come between a write and our knowing of it.
            stored = read_verdict(self._folder)
            # So can a late write of an earlier driver's.
            if stored is not None and stored.get("epoch", 0) > self._epoch:
                raise LeaseLost(
                    f"{error}, by another driver, whose the run is now; the same command says how "
                    "it stands"
                ) from error
            self._version = self._folder.version(VERDICT)
            self._write(told)
        return told

    def _write(self, told: Verdict) -> None:
        with self._folder.writing(VERDICT, over=self._version) as path:
            path.write_text(json.dumps(asdict(told), indent=1))
        self._version = self._folder.version(VERDICT)


def read_verdict(folder: Folder) -> dict[str, Any] | None:
    """What verdict.json tells, if there is one. Raises: RunError if it is not JSON."""
    try:
        told: dict[str, Any] = json.loads(folder.read(VERDICT))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{folder.url(VERDICT)} is not JSON ({error}); delete it") from error
    return told


def finished_plan(folder: Folder) -> str | None:
    """Hash of the plan that the run has finished, if it has finished one."""
    told = read_verdict(folder)
    return str(told["plan"]) if told is not None and told.get("finished") else None
