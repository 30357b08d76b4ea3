"""A run from plan to verdict: do what is left of the plan, publish each shard as it completes."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version

from omnitrace_core import __version__
from omnitrace_core.errors import LeaseLost, RunError, StoreCredentials
from pipeline.driver.error_watch import ErrorWatch, count_chunk_files
from pipeline.driver.prepare import check_writable
from pipeline.driver.progress import Progress
from pipeline.driver.schedule import Schedule
from pipeline.driver.stop_signals import stopping_on_signals
from pipeline.planning.identity import record_run_date
from pipeline.planning.plan import ExecuteChunks
from pipeline.run_folder.attempts import ATTEMPTS
from pipeline.run_folder.chunk_files import CHUNK_FILES, committed_chunks
from pipeline.run_folder.job import Job
from pipeline.run_folder.lease import Lease, hold_lease
from pipeline.run_folder.lease_file import Claim
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.publish import publish_shard
from pipeline.run_folder.stale_files import delete_stale_files, invalidate_missing_files
from pipeline.run_folder.verdict import (
    ExitCode,
    RunState,
    StopReason,
    Verdict,
    VerdictFile,
    exit_code_of,
    is_finished,
    make_verdict,
    unfinished_verdict,
)
from stages.arrow.schema import SCHEMA_VERSION
from stages.records.columns import kept_tables

_SHAPING_PACKAGES = ("ray", "pyarrow", "torch", "transformers", "spacy", "decord")


def run(job: Job, execute: ExecuteChunks | None = None, *, take_lease: bool = False) -> Verdict:
    """Finish the job: a finished one is left alone, an interrupted one is continued.

    execute: does the work of a window of chunks; by default the graph on Ray. take_lease: take the
    run over from whoever works on it. SIGTERM ends it as Ctrl-C does, in the main thread.

    Raises:
        ConfigError: the output cannot be written, or Ray cannot be had.
        LeaseHeld: another driver works on the run, and is alive.
        LeaseLost: another driver took the run over.
        RunError: a stage broke, or rows were lost; what was committed stays and is not redone.
    """
    if is_finished(job):
        return make_verdict(job)
    check_writable(job.identity.output)
    with (
        stopping_on_signals(),
        # Ray goes down last: who is told to stop may have seconds to say where the run stands.
        ExitStack() as work,
        hold_lease(job.folder, job.config.run.lease_s, take_over=take_lease) as lease,
    ):
        return _run(_as_it_stands(job), lease, execute, work)


def _run(job: Job, lease: Lease, execute: ExecuteChunks | None, work: ExitStack) -> Verdict:
    told = VerdictFile(job.folder, lease.epoch)
    if is_finished(job):
        return make_verdict(job)
    try:
        _begin(job, lease, told)
        return _end(job, lease, told, _work(job, lease, execute, work, told.stopped_early))
    except KeyboardInterrupt as stop:
        cause = f"{_cause(stop)}; the same command continues the run"
        return _end(job, lease, told, StopReason(ExitCode.INCOMPLETE, cause))
    except LeaseLost:
        # The folder is another's: what it says of the run is not ours to write.
        raise
    except Exception as error:
        tell_broken(job, lease, told, error)
        raise


def tell_broken(work: RunState, lease: Lease, told: VerdictFile, error: Exception) -> None:
    """Say in the verdict what broke a run. Raises: LeaseLost if it is not ours to say.

    StoreCredentials: those that were good when the run began are a crash, and no matter of usage.
    """
    code = ExitCode.CRASH if isinstance(error, StoreCredentials) else exit_code_of(error)
    # What keeps us from telling may be what broke the run, which says more.
    with suppress(OSError):
        if _is_ours(lease):
            told.write(unfinished_verdict(make_verdict(work), StopReason(code, str(error))))
    if code != exit_code_of(error):
        raise RunError(str(error)) from error


def _is_ours(lease: Lease) -> bool:
    """Whether the store says so; if it does not answer, nobody has it for all we know.

    Raises: LeaseLost, OSError.
    """
    try:
        lease.confirm()
    except LeaseLost as lost:
        if not isinstance(lost.__cause__, OSError):
            raise
        return False
    return True


def _end(job: Job, lease: Lease, told: VerdictFile, stopped: StopReason | None) -> Verdict:
    """Say how the run stands, and sweep up behind it if it is finished."""
    verdict = make_verdict(job)
    if verdict.finished:
        # Its files are looked for, which takes a while, only where that decides something: who is
        # told to stop may have seconds.
        job.manifests.update(invalidate_missing_files(job.folder, job.manifests))
        _sweep(job, lease)
        verdict = make_verdict(job)
    if verdict.finished:
        # Parts of other plans: shards that changed, chunks of another size. And what was counted.
        for leftover in (CHUNK_FILES, ATTEMPTS):
            lease.confirm()
            job.folder.delete_folder(leftover)
    else:
        verdict = make_verdict(job, stopped or _lost(job))
    lease.confirm()
    return told.write(verdict)


def _as_it_stands(job: Job) -> Job:
    """The job with what others published since it was planned."""
    manifests = invalidate_missing_files(job.folder, read_manifests(job.folder, with_chunks=False))
    numbers = {name: manifest.number for name, manifest in manifests.items()}
    return replace(job, manifests=manifests, plan=job.plan.with_published_numbers(numbers))


def _begin(job: Job, lease: Lease, told: VerdictFile) -> None:
    """From here on the run's folder says that it is going on, and holds nothing stale."""
    # A date given in the config needs no remembering, and must not bind runs without one.
    if job.config.run.date is None:
        record_run_date(job.identity)
    lease.confirm()
    told.write(unfinished_verdict(make_verdict(job)))
    about = json.dumps(describe(job), indent=1).encode()
    job.folder.replace("run.json", about, lease.confirm)
    _sweep(job, lease)


def _sweep(job: Job, lease: Lease) -> None:
    """What is not of the plan goes; only then a run can be finished."""
    for name in delete_stale_files(job.folder, job.manifests, job.plan, lease.confirm):
        del job.manifests[name]


def _work(
    job: Job, lease: Lease, execute: ExecuteChunks | None, work: ExitStack, stopped_early: bool
) -> StopReason | None:
    """Do what is left, and publish each shard as it completes; says why if it ends early.

    work: where Ray, and what runs on it, is kept until the end. stopped_early: a driver before us
    was.
    """
    shards = [shard for shard in job.plan.shards if not job.is_published(shard)]
    n_chunks = sum(job.plan.n_chunks_of(shard) for shard in shards)
    n_rows = sum(shard.n_rows for shard in shards)
    parts = committed_chunks(job.folder)
    published = [shard for shard in job.plan.shards if job.is_published(shard)]
    errors = ErrorWatch(job.config.run, [job.manifests[shard.name] for shard in published])
    if stopped_early:
        count_chunk_files(errors, job.folder, job.plan, shards, parts)
    with closing(Progress(n_chunks, n_rows, job.config.model.replicas)) as progress:
        schedule = Schedule(job.plan, shards, parts, progress.skip)
        while True:
            window = schedule.next_window(job.config.run.window_chunks)
            _publish(job, lease, schedule)
            if not window:
                return None
            if reason := errors.stop_reason():
                return StopReason(ExitCode.INCOMPLETE, reason, too_many_errors=True)
            if execute is None:
                work.enter_context(_ray(job, progress))
                execute = _graph(job, lease.claim)
            for committed in work.enter_context(closing(execute(window))):
                lease.check()
                progress.update(committed)
                schedule.count_committed(committed.shard)
                _publish(job, lease, schedule)
                errors.count(committed.n_rows, committed.n_error)
                if reason := errors.stop_reason():
                    return StopReason(ExitCode.INCOMPLETE, reason, too_many_errors=True)


def _publish(job: Job, lease: Lease, schedule: Schedule) -> None:
    tables = kept_tables(job.config.trace)
    for shard in schedule.pop_complete():
        manifest = publish_shard(
            job.folder,
            job.plan,
            shard,
            tables,
            confirm=lease.confirm,
            epoch=lease.epoch,
            republish=shard.name in job.manifests,
        )
        job.manifests[shard.name] = replace(manifest, chunk_keys=[])


def _cause(stop: KeyboardInterrupt) -> str:
    return f"stopped by {stop.args[0]}" if stop.args else "interrupted"


def _lost(job: Job) -> StopReason | None:
    """Chunks that went into the graph and did not come out are never passed over in silence."""
    missing = sum(not job.is_published(shard) for shard in job.plan.shards)
    if not missing:
        return None
    return StopReason(
        ExitCode.INCOMPLETE,
        f"{missing} shards are not complete: chunks did not come back from the graph; "
        "the same command does what is missing",
    )


def _graph(job: Job, claim: Claim) -> ExecuteChunks:
    from pipeline.graph import executor

    return executor(job, claim)


@contextmanager
def _ray(job: Job, progress: Progress) -> Iterator[None]:
    from pipeline.driver.capacity_watch import reporting_capacity
    from pipeline.driver.ray_session import ray_session

    with ray_session(job.config), reporting_capacity(job.config, progress):
        yield


def describe(job: Job) -> dict[str, object]:
    """What run.json says: the resolved settings, the versions at work, and the plan in numbers."""
    return {
        "run_id": job.identity.run_id,
        "run_date": job.identity.date.isoformat(),
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprint": job.identity.fingerprint,
        "schema_version": SCHEMA_VERSION,
        "plan": {
            "digest": job.plan.digest,
            "n_shards": len(job.plan.shards),
            "n_chunks": job.plan.n_chunks,
            "n_rows": job.plan.n_rows,
            "n_duplicate_ids": sum(len(shard.duplicates) for shard in job.plan.shards),
        },
        "config": job.config.model_dump(mode="json"),
        "media_rules": asdict(job.rules),
        "versions": {"python": platform.python_version(), **dict(installed_versions())},
    }


def installed_versions() -> Iterator[tuple[str, str]]:
    """Versions of what shapes the records."""
    yield "omnitrace", __version__
    for name in _SHAPING_PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"
