"""The verdict on a run: what is done, what failed, and the exit code, computed from manifests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

from omnitrace_core.errors import (
    ConfigError,
    InputSchemaError,
    LeaseHeld,
    LeaseLost,
    RunError,
    UnknownName,
)
from pipeline.from_json import from_json
from pipeline.planning.plan import Plan, Shard
from pipeline.run_folder.earlier_times import earlier_times
from pipeline.run_folder.lease_file import LeaseHolder
from pipeline.run_folder.manifests import Manifest
from pipeline.run_folder.published_files import list_published
from pipeline.storage.folder import Folder
from pipeline.totals.run_times import RunClock, RunTimes, times_from_json
from pipeline.totals.shard_totals import Totals, added, totals_from_json

if TYPE_CHECKING:
    from pipeline.config import RunConfig

VERDICT = "verdict.json"


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    CRASH = 1
    USAGE = 2
    INCOMPLETE = 4


def exit_code_of(error: Exception) -> ExitCode:
    """The exit code for an error that ended a command.

    USAGE for errors in the config or the input, INCOMPLETE if another driver has the run, else
    CRASH.
    """
    if isinstance(error, LeaseHeld | LeaseLost):
        return ExitCode.INCOMPLETE
    usage = isinstance(error, ConfigError | InputSchemaError | UnknownName)
    return ExitCode.USAGE if usage else ExitCode.CRASH


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a run ended before all its work was done."""

    exit_code: ExitCode
    reason: str
    too_many_errors: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a run, as stored in verdict.json.

    plan: digest of the plan that it refers to. finished: every input row is published. exit_code:
    null while the run is going on. n_rows, n_ok, n_error, n_spans: of published shards. by_code,
    by_stage: error rows of each code and of each stage. inputs: digest of the listed input and the
    settings. tables: number of files and rows of each table. stopped_early: this driver or an
    earlier one ended because of too many errors. retry, retry_of: number and choice of the last
    retry; it is done if the run is finished. n_retried, n_mended: rows that it did again, and of
    these the ok ones. files: digest of the names and sizes of all published files, if the run is
    finished. epoch: of the driver that wrote it. times: of the run and its drivers. totals: of the
    `n_shards_with_totals` published shards whose manifests have them; those that an older version
    published do not.
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
    retry: int = 0
    retry_of: list[str] = field(default_factory=list, compare=False)
    n_retried: int = 0
    n_mended: int = 0
    files: str = field(default="", compare=False)
    epoch: int = field(default=0, compare=False)
    times: RunTimes = field(default_factory=RunTimes, compare=False)
    totals: Totals = field(default_factory=Totals)
    n_shards_with_totals: int = 0


class RunState(Protocol):
    """A run, or a run that is curated again: its plan, and what is published of it so far."""

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


def is_finished(run: RunState) -> bool:
    """Whether the verdict calls this plan finished, and what is published is still the same."""
    if not all(run.is_published(shard) for shard in run.plan.shards):
        return False
    verdict = read_verdict(run.folder) or {}
    return (
        bool(verdict.get("finished"))
        and verdict.get("plan") == run.plan.digest
        and verdict.get("files") == list_published(run.folder).digest
    )


def make_verdict(run: RunState, stopped: StopReason | None = None) -> Verdict:
    """Compute the verdict from the manifests of the plan's shards; other manifests do not count.

    Raises:
        RunError: the rows that were published are not the rows of the input.
    """
    plan = run.plan
    keys = {shard.key for shard in plan.shards}
    final = [manifest for manifest in run.manifests.values() if manifest.key in keys]
    n_rows, n_ok, n_error = (
        sum(getattr(item, name) for item in final) for name in ("n_rows", "n_ok", "n_error")
    )
    finished = len(final) == len(plan.shards)
    if finished and (n_rows != plan.n_rows or n_ok + n_error != n_rows):
        raise RunError(
            f"{plan.n_rows} rows went in, {n_ok} ok and {n_error} error rows came out; "
            "this is a fault of the pipeline, please report it"
        )
    limit = run.config.run.max_error_fraction
    exit_code, reason = exit_code_and_reason(finished, n_error, n_rows, limit, stopped)
    retry = max((item.retry for item in final), default=0)
    retried = [item for item in final if item.retry == retry]
    totals = [item.totals for item in final if item.totals is not None]
    return Verdict(
        run_id=run.run_id,
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
        inputs=plan.inputs_digest,
        tables=_tables(final),
        stopped_early=stopped is not None and stopped.too_many_errors,
        retry=retry,
        n_retried=sum(item.n_retried for item in retried),
        n_mended=sum(item.n_mended for item in retried),
        totals=added(totals),
        n_shards_with_totals=len(totals),
    )


def unfinished_verdict(verdict: Verdict, stopped: StopReason | None = None) -> Verdict:
    """The same verdict, but not finished: all may be published, but the run has not ended."""
    exit_code, reason = exit_code_and_reason(False, 0, 0, 0.0, stopped)
    return replace(verdict, finished=False, exit_code=exit_code, reason=reason)


def exit_code_and_reason(
    finished: bool,
    n_error: int,
    n_rows: int,
    max_error_fraction: float,
    stopped: StopReason | None = None,
) -> tuple[int | None, str]:
    """The exit code (None while the run goes on) and the reason in words."""
    if stopped is not None:
        return stopped.exit_code, stopped.reason
    if not finished:
        return None, "going on"
    if n_rows and n_error / n_rows > max_error_fraction:
        return ExitCode.INCOMPLETE, (
            f"{n_error} of {n_rows} rows are errors, above "
            f"run.max_error_fraction={max_error_fraction}"
        )
    return ExitCode.DONE, "done"


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
    """verdict.json, as the driver of this epoch writes it.

    Made when the lease is taken. Each write replaces only the version that was there then, or one
    that we wrote since. So a driver that was suspended while another took the run over cannot
    overwrite the other's verdict.

    stopped_early: an earlier driver ended because of too many errors. It stays in the verdict until
    the run is finished, since the next driver may end before it counts as many errors itself.
    retry, retry_of: the last retry, which stays in the verdict unless the driver begins another
    one and sets them.

    predecessor: the holder of the lease before this driver. It and those before it may have been
    killed.
    """

    def __init__(self, folder: Folder, epoch: int, predecessor: LeaseHolder | None = None) -> None:
        self._folder, self._epoch = folder, epoch
        self._version = folder.version(VERDICT)
        stored = read_verdict(folder) or {}
        self.stopped_early = bool(stored.get("stopped_early"))
        self.retry = int(stored.get("retry") or 0)
        self.retry_of = [str(name) for name in stored.get("retry_of") or ()]
        self._clock = RunClock(earlier_times(stored, predecessor))

    @property
    def started_at(self) -> str:
        """When the run's first driver took the lease."""
        return self._clock.going_on().started_at

    def write(self, verdict: Verdict) -> Verdict:
        """Replace the file; returns what was written, as `completed` fills it in.

        Raises:
            LeaseLost: a later driver has written it.
        """
        if not verdict.times.started_at:
            verdict = self.completed(verdict)
        try:
            self._write(verdict)
        except FileExistsError as error:
            # A signal may have interrupted us after a write and before we stored its version, or an
            # earlier driver wrote late: then we write again.
            stored = read_verdict(self._folder)
            if stored is not None and stored.get("epoch", 0) > self._epoch:
                raise LeaseLost(
                    f"{error} by another driver, which has taken the run over; the same command "
                    "reports its state"
                ) from error
            self._version = self._folder.version(VERDICT)
            self._write(verdict)
        return verdict

    def completed(self, verdict: Verdict) -> Verdict:
        """The verdict with what only this object knows filled in."""
        stopped_early = not verdict.finished and (verdict.stopped_early or self.stopped_early)
        going_on = verdict.exit_code is None
        times = self._clock.going_on() if going_on else self._clock.ended()
        if self.retry > verdict.retry:
            # No shard is published with the rows of this retry.
            verdict = replace(verdict, retry=self.retry, n_retried=0, n_mended=0)
        return replace(
            verdict,
            epoch=self._epoch,
            stopped_early=stopped_early,
            retry_of=self.retry_of,
            times=times,
        )

    def _write(self, verdict: Verdict) -> None:
        with self._folder.writing(VERDICT, if_version=self._version) as path:
            path.write_text(json.dumps(asdict(verdict), indent=1))
        self._version = self._folder.version(VERDICT)


def read_verdict(folder: Folder) -> dict[str, Any] | None:
    """The fields of verdict.json; None if there is none. Raises: RunError if it is not valid."""
    try:
        content = from_json(dict[str, Any], json.loads(folder.read(VERDICT)))
        # Another version's verdict may lack fields, or have more; times and totals are read apart.
        for name, kind in get_type_hints(Verdict).items():
            if name in content and name not in ("times", "totals"):
                content[name] = from_json(kind, content[name], name)
        times_from_json(content.get("times"))
        totals_from_json(content.get("totals"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{folder.url(VERDICT)} is not a verdict ({error}); delete it and run again"
        ) from error
    return content


def with_stored_times(verdict: Verdict, folder: Folder) -> Verdict:
    """The verdict with the times in verdict.json, where this process adds none of its own."""
    times = times_from_json((read_verdict(folder) or {}).get("times"))
    return verdict if times is None else replace(verdict, times=times)


def verdict_of(content: dict[str, Any]) -> Verdict | None:
    """The verdict with these fields; None if fields are missing or unknown: another version's."""
    times, totals = times_from_json(content.get("times")), totals_from_json(content.get("totals"))
    if content.keys() != {field.name for field in fields(Verdict)} or not times or not totals:
        return None
    return Verdict(**{**content, "times": times, "totals": totals})


def n_finished_shards(folder: Folder) -> int | None:
    """Number of shards of the run; None if it is not finished."""
    verdict = read_verdict(folder)
    return int(verdict["n_shards"]) if verdict is not None and verdict.get("finished") else None
