"""Curate a published run again: its shards one after another, or in worker processes."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import asdict, replace

from omnitrace_core.errors import LeaseLost
from pipeline.driver.failure import record_failure
from pipeline.driver.plan_run import check_writable
from pipeline.driver.progress import Progress
from pipeline.driver.run_description import installed_versions
from pipeline.driver.stop_signals import stopping_on_signals
from pipeline.recuration.plan import Recuration, source_is_unchanged, with_present_source
from pipeline.recuration.shard import recurate_shard
from pipeline.recuration.worker_processes import recurate_in_processes
from pipeline.run_folder.checks.damaged_shards import invalidate_damaged_shards
from pipeline.run_folder.checks.final_check import check_published
from pipeline.run_folder.checks.linked_folders import check_subfolders
from pipeline.run_folder.checks.stale_files import delete_stale_files
from pipeline.run_folder.lease import Lease, hold_lease
from pipeline.run_folder.lease_file import is_held
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.publish import invalidate_manifest
from pipeline.run_folder.stored_run import RUN_JSON, record_totals
from pipeline.run_folder.verdict import (
    ExitCode,
    StopReason,
    Verdict,
    VerdictFile,
    is_finished,
    make_verdict,
    unfinished_verdict,
    with_stored_times,
)
from stages.arrow.table_schema import SCHEMA_VERSION


def run_recuration(
    recuration: Recuration, workers: int | None = None, *, take_lease: bool = False
) -> Verdict:
    """Curate the shards that are not published yet, and return the verdict.

    workers: processes, at most one per shard; 1 works in this process, None takes one per CPU.
    take_lease: take the destination over at once, even if another process works on it.

    Raises:
        ConfigError: the destination cannot be written.
        LeaseHeld: another process works on the destination, and is alive.
        LeaseLost: another process took it over.
        RunError: the run cannot be read back, or rows were lost; what was published stays.
    """
    nothing_left = not is_held(recuration.folder) and is_finished(recuration)
    if nothing_left and source_is_unchanged(recuration):
        return with_stored_times(_verdict(recuration), recuration.folder)
    folder = recuration.folder
    check_writable(folder, "DEST ")
    check_subfolders(folder, [recuration.config.input.path, recuration.run.folder.root])
    lease_s = recuration.config.run.lease_s
    with stopping_on_signals(), hold_lease(folder, lease_s, take_over=take_lease) as lease:
        verdict_file = VerdictFile(folder, lease.epoch, lease.predecessor)
        recuration = with_present_source(recuration)
        manifests = invalidate_damaged_shards(folder, read_manifests(folder), lease.confirm)
        recuration.manifests.clear()
        recuration.manifests.update(manifests)
        return _drive(recuration, lease, verdict_file, workers or os.cpu_count() or 1)


def _drive(
    recuration: Recuration, lease: Lease, verdict_file: VerdictFile, workers: int
) -> Verdict:
    stopped = None
    try:
        _begin(recuration, lease, verdict_file)
        _work(recuration, lease, workers)
    except KeyboardInterrupt:
        stopped = StopReason(
            ExitCode.INCOMPLETE,
            "interrupted; run the same command again to finish the missing work",
        )
    except LeaseLost:
        # Another process has the folder, and writes the verdict.
        raise
    except Exception as error:
        record_failure(recuration, lease, verdict_file, error)
        raise
    verdict = verdict_file.completed(_end(recuration, lease, stopped))
    record_totals(recuration.folder, verdict, lease.confirm)
    lease.confirm()
    return verdict_file.write(verdict)


def _end(recuration: Recuration, lease: Lease, stopped: StopReason | None) -> Verdict:
    """The verdict; finished only if the run is as planned and DEST holds its shards alone."""
    verdict = _verdict(recuration, stopped)
    if not verdict.finished:
        return verdict
    if not source_is_unchanged(recuration):
        root = recuration.run.folder.root
        reason = f"{root} changed while it was curated; run the same command again"
        problem: StopReason | None = StopReason(ExitCode.INCOMPLETE, reason)
        files = ""
    else:
        _delete_stale_files(recuration, lease)
        check = check_published(recuration)
        problem, files = check.problem, check.files
    if problem is None:
        return replace(verdict, files=files)
    return unfinished_verdict(make_verdict(recuration, problem), problem)


def _begin(recuration: Recuration, lease: Lease, verdict_file: VerdictFile) -> None:
    """Write to the folder which run it is and that it is going on, and delete stale files."""
    folder, manifests = recuration.folder, recuration.manifests
    description = json.dumps(
        describe_recuration(recuration, verdict_file.started_at), indent=1
    ).encode()
    folder.replace(RUN_JSON, description, lease.confirm)
    verdict_file.write(unfinished_verdict(_verdict(recuration)))
    # Manifests of other settings are invalidated before any file is replaced: otherwise a crash
    # could leave files of these settings beside a manifest of the others. They are not deleted: a
    # late deletion could delete the manifest that another process has written meanwhile.
    for shard in recuration.plan.shards:
        if shard.name in manifests and not recuration.is_published(shard):
            invalidate_manifest(folder, manifests[shard.name].number, lease.confirm)
    _delete_stale_files(recuration, lease)


def _work(recuration: Recuration, lease: Lease, workers: int) -> None:
    shards = [shard for shard in recuration.plan.shards if not recuration.is_published(shard)]
    if not shards:
        return
    source = recuration.run.manifests
    n_chunks = sum(len(source[shard.name].chunk_keys) for shard in shards)
    workers = min(workers, len(shards))
    with closing(Progress(n_chunks, sum(shard.n_rows for shard in shards))) as progress:
        if workers > 1:
            recurate_in_processes(recuration, lease, shards, workers, progress.update)
            return
        for shard in shards:
            manifest = recurate_shard(recuration, shard, progress.update, lease.claim)
            recuration.manifests[shard.name] = manifest


def _verdict(recuration: Recuration, stopped: StopReason | None = None) -> Verdict:
    """The verdict as of any run, but never finished while the source run is not finished."""
    verdict = make_verdict(recuration, stopped)
    run = recuration.run
    if run.finished or not verdict.finished:
        return verdict
    reason = f"{run.folder.root} is not finished; run the same command again when it is"
    stopped = stopped or StopReason(ExitCode.INCOMPLETE, reason)
    return replace(make_verdict(recuration, stopped), finished=False)


def _delete_stale_files(recuration: Recuration, lease: Lease) -> None:
    folder, manifests = recuration.folder, recuration.manifests
    for name in delete_stale_files(folder, manifests, recuration.plan, lease.confirm):
        del manifests[name]


def describe_recuration(recuration: Recuration, started_at: str) -> dict[str, object]:
    """The content of run.json: as of any run, and what was changed against the source run."""
    run, plan = recuration.run, recuration.plan
    return {
        "run_id": recuration.run_id,
        "run_date": run.run_date,
        "started_at": started_at,
        "fingerprint": plan.fingerprint,
        "schema_version": SCHEMA_VERSION,
        "curated_from": {
            "run": run.folder.root,
            "run_id": run.run_id,
            "run_date": run.run_date,
            "fingerprint": run.fingerprint,
            "changed": {
                key: {"from": old, "to": new} for key, (old, new) in recuration.changed.items()
            },
        },
        "plan": {
            "digest": plan.digest,
            "n_shards": len(plan.shards),
            "n_chunks": sum(len(manifest.chunk_keys) for manifest in run.manifests.values()),
            "n_rows": plan.n_rows,
        },
        "config": recuration.config.model_dump(mode="json"),
        "media_rules": asdict(run.rules) if run.rules else None,
        "versions": installed_versions(),
    }
