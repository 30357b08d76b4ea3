"""A published run curated again: its shards one after another, or in processes side by side."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import platform
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, replace
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event

from omnitrace_core.errors import LeaseLost, RunError
from pipeline.driver.prepare import check_writable
from pipeline.driver.progress import Progress
from pipeline.driver.run import installed_versions, tell_broken
from pipeline.driver.stop_signals import stopping_on_signals
from pipeline.planning.plan import CommittedChunk, Shard
from pipeline.recuration.plan import Recuration
from pipeline.recuration.shard import Report, recurate_shard
from pipeline.run_folder.lease import Lease, hold_lease
from pipeline.run_folder.lease_file import Claim
from pipeline.run_folder.manifests import Manifest, manifest_name, read_manifests
from pipeline.run_folder.stale_files import delete_stale_files, invalidate_missing_files
from pipeline.run_folder.stored_run import RUN_JSON
from pipeline.run_folder.verdict import (
    ExitCode,
    StopReason,
    Verdict,
    VerdictFile,
    is_finished,
    make_verdict,
    unfinished_verdict,
)
from stages.arrow.schema import SCHEMA_VERSION

_POLL_S = 0.2


def recurate(job: Recuration, workers: int | None = None, *, take_lease: bool = False) -> Verdict:
    """Finish the job: what is published already is left alone.

    workers: processes, at most one per shard; 1 works in this process, None takes one per CPU.
    take_lease: take the destination over from whoever works on it.

    Raises:
        ConfigError: the destination cannot be written.
        LeaseHeld: another process works on the destination, and is alive.
        LeaseLost: another process took it over.
        RunError: the run cannot be read back, or rows were lost; what was published stays.
    """
    if is_finished(job):
        return _judge(job)
    check_writable(job.folder, "DEST ")
    held = hold_lease(job.folder, job.config.run.lease_s, take_over=take_lease)
    with stopping_on_signals(), held as lease:
        job.manifests.update(invalidate_missing_files(job.folder, read_manifests(job.folder)))
        return _recurate(job, lease, workers or os.cpu_count() or 1)


def _recurate(job: Recuration, lease: Lease, workers: int) -> Verdict:
    stopped, told = None, VerdictFile(job.folder, lease.epoch)
    try:
        _begin(job, lease, told)
        _work(job, lease, workers)
    except KeyboardInterrupt:
        stopped = StopReason(
            ExitCode.INCOMPLETE, "interrupted; the same command does what is missing"
        )
    except LeaseLost:
        raise
    except Exception as error:
        tell_broken(job, lease, told, error)
        raise
    verdict = _judge(job, stopped)
    if verdict.finished:
        _sweep(job, lease)
    lease.confirm()
    return told.write(verdict)


def _judge(job: Recuration, stopped: StopReason | None = None) -> Verdict:
    """As of any run; but what was made of an unfinished run is not finished either."""
    verdict = make_verdict(job, stopped)
    if job.run.finished or not verdict.finished:
        return verdict
    reason = f"{job.run.folder.root} is not finished; when it is, the same command does the rest"
    return replace(
        make_verdict(job, stopped or StopReason(ExitCode.INCOMPLETE, reason)), finished=False
    )


def _begin(job: Recuration, lease: Lease, told: VerdictFile) -> None:
    """From here on the folder says what it is and that it is going on, and holds nothing stale."""
    about = json.dumps(describe(job), indent=1).encode()
    job.folder.replace(RUN_JSON, about, lease.confirm)
    told.write(unfinished_verdict(_judge(job)))
    # What other settings made goes first: were it replaced bit by bit, a crash could leave files of
    # these beside a manifest of those.
    for shard in job.plan.shards:
        if shard.name in job.manifests and not job.is_published(shard):
            lease.confirm()
            job.folder.delete(manifest_name(job.manifests.pop(shard.name).number))
    _sweep(job, lease)


def _sweep(job: Recuration, lease: Lease) -> None:
    for name in delete_stale_files(job.folder, job.manifests, job.plan, lease.confirm):
        del job.manifests[name]


def _work(job: Recuration, lease: Lease, workers: int) -> None:
    shards = [shard for shard in job.plan.shards if not job.is_published(shard)]
    if not shards:
        return
    n_chunks = sum(len(job.run.manifests[shard.name].chunk_keys) for shard in shards)
    with closing(Progress(n_chunks, sum(shard.n_rows for shard in shards))) as progress:
        if min(workers, len(shards)) > 1:
            _in_processes(job, lease, shards, min(workers, len(shards)), progress.update)
            return
        for shard in shards:
            job.manifests[shard.name] = recurate_shard(job, shard, progress.update, lease.claim)


def describe(job: Recuration) -> dict[str, object]:
    """What run.json says: as that of any run, and what was changed against which run."""
    run = job.run
    return {
        "run_id": job.run_id,
        "run_date": run.run_date,
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprint": job.plan.fingerprint,
        "schema_version": SCHEMA_VERSION,
        "curated_from": {
            "run": run.folder.root,
            "run_id": run.run_id,
            "run_date": run.run_date,
            "fingerprint": run.fingerprint,
            "changed": {key: {"from": old, "to": new} for key, (old, new) in job.changed.items()},
        },
        "plan": {
            "digest": job.plan.digest,
            "n_shards": len(job.plan.shards),
            "n_chunks": sum(len(item.chunk_keys) for item in run.manifests.values()),
            "n_rows": job.plan.n_rows,
        },
        "config": job.config.model_dump(mode="json"),
        "media_rules": asdict(run.rules) if run.rules else None,
        "versions": {"python": platform.python_version(), **dict(installed_versions())},
    }


# --- processes ---------------------------------------------------------------------------------


def _in_processes(
    job: Recuration, lease: Lease, shards: Sequence[Shard], workers: int, report: Report
) -> None:
    # One core each: threads of maths libraries would only be in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Spawned, not forked: Arrow's and the tagger's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    told, stop = context.SimpleQueue(), context.Event()
    with ProcessPoolExecutor(workers, context, _join, (job, told, stop, lease.claim)) as pool:
        waiting = {pool.submit(_shard_here, shard) for shard in shards}
        try:
            while waiting:
                done, waiting = wait(waiting, _POLL_S, FIRST_COMPLETED)
                _pass_on(told, report)
                lease.check()
                for manifest in (future.result() for future in done):
                    job.manifests[manifest.shard] = manifest
        except BrokenProcessPool as error:
            raise RunError(
                "a worker process died, perhaps for lack of memory; the same command with fewer "
                "--workers does what is missing"
            ) from error
        finally:
            stop.set()
            for future in waiting:
                future.cancel()
            # Nobody may be left waiting for room in the queue.
            _pass_on(told, report)


def _pass_on(told: SimpleQueue[CommittedChunk], report: Report) -> None:
    while not told.empty():
        report(told.get())


class _Stopped(Exception):
    """The driver wants no more of this shard."""


# Of a worker process, which does shards of one job.
_here: tuple[Recuration, SimpleQueue[CommittedChunk], Event, Claim] | None = None


def _join(job: Recuration, told: SimpleQueue[CommittedChunk], stop: Event, claim: Claim) -> None:
    """Begin a worker process. The driver alone hears Ctrl-C, and tells the others."""
    global _here
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _here = (job, told, stop, claim)


def _shard_here(shard: Shard) -> Manifest:
    assert _here is not None
    job, told, stop, claim = _here

    def report(committed: CommittedChunk) -> None:
        if stop.is_set():
            raise _Stopped
        told.put(committed)

    return recurate_shard(job, shard, report, claim)
