"""One shard of a published run curated again, in whatever process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from omnitrace_core.media_rules import MediaRules
from pipeline.planning.plan import CommittedChunk, Shard
from pipeline.recuration.plan import Recuration
from pipeline.run_folder.chunk_files import check_chunk_rows, count_by_status
from pipeline.run_folder.lease_file import Claim, check_claim
from pipeline.run_folder.manifests import Manifest
from pipeline.run_folder.publish import Confirm, write_shard_manifest
from pipeline.run_folder.stored_run import StoredRun
from pipeline.run_folder.stored_shard import read_shard
from pipeline.run_folder.tables import ShardWriter, table_name, writing_shard
from stages.arrow.schema import SCHEMA_VERSION
from stages.records.columns import kept_tables
from stages.recurate import Recurate

# More samples at once are curated no faster.
_QUICK_SAMPLES = 512

# Told of each chunk that is done.
Report: TypeAlias = Callable[[CommittedChunk], None]


def recurate_shard(job: Recuration, shard: Shard, report: Report, claim: Claim) -> Manifest:
    """Curate and publish a shard; returns its manifest.

    claim: of the driver, checked before each step that others see. Memory: one batch of chunks, and
    one row group of each table.

    Raises:
        RunError: what the run published cannot be read back, or rows were lost.
        LeaseLost: the folder has another driver.
        FileExistsError: others write the shard's files, though the folder is ours.
    """
    confirm = partial(check_claim, job.folder, claim)
    try:
        return _recurate(job, shard, report, claim, confirm)
    except FileExistsError:
        # Written late by a driver before us, if the folder is still ours.
        confirm()
        return _recurate(job, shard, _ignore, claim, confirm)


def _recurate(
    job: Recuration, shard: Shard, report: Report, claim: Claim, confirm: Confirm
) -> Manifest:
    tables = kept_tables(job.config.trace)
    source = job.run.manifests[shard.name]
    same = not job.change.rewrites_traces and source.schema_version == SCHEMA_VERSION
    copied = ["traces"] if same and "traces" in tables else []
    done = _write(job, shard, [name for name in tables if name not in copied], report, confirm)
    if copied and done.errors.total() > source.n_error:
        # Samples that are errors now have no traces any more.
        copied = []
        done = _write(job, shard, tables, _ignore, confirm)
    n_rows = done.n_rows
    for name in copied:
        file = table_name(name, shard.number)
        job.run.folder.copy(file, job.folder, confirm)
        n_rows[name] = source.files[file]
    return write_shard_manifest(
        job.folder,
        shard,
        {name: n_rows[name] for name in tables},
        done.errors,
        fingerprint=job.plan.fingerprint,
        chunk_samples=cut_of(job.run, source),
        chunk_keys=source.chunk_keys,
        epoch=claim.epoch,
        confirm=confirm,
    )


def _write(
    job: Recuration, shard: Shard, tables: Sequence[str], report: Report, confirm: Confirm
) -> ShardWriter:
    """Curate a shard and write its files in `tables`, chunk by chunk as the run did."""
    source, change = job.run.manifests[shard.name], job.change
    cut = cut_of(job.run, source)
    traces = "traces" in tables
    rules = job.run.rules or MediaRules()
    work = Recurate(change, rules, job.plan.fingerprint, traces=traces)
    columns = change.columns(traces=traces)
    # Slow work goes chunk by chunk, so that it can be watched and stopped.
    at_once = cut if change.segments or change.folds or change.draws else _QUICK_SAMPLES
    keys, first_row = iter(source.chunk_keys), 0
    with writing_shard(job.folder, shard.number, tables) as files:
        for batch in read_shard(job.run.folder, source, cut, columns, at_once):
            records = work(batch)
            for start in range(0, len(records), cut):
                part = records.slice(start, cut)
                check_chunk_rows(part, shard.name, first_row, min(cut, len(records) - start))
                files.add(part)
                first_row += len(part)
                n_error = count_by_status(part)["error"]
                report(CommittedChunk(next(keys), shard.name, len(part), n_error))
        confirm()
    return files


def _ignore(committed: CommittedChunk) -> None:
    """It was reported the first time."""


def cut_of(run: StoredRun, manifest: Manifest) -> int:
    """Rows of a shard's chunks, so that its files can be written as they were the first time.

    It need not be `run.chunk_samples`, which another start of the same run may have changed.
    Manifests of old runs do not tell; any cut into as many chunks serves for those.
    """
    configured = run.config.run.chunk_samples
    n_chunks = len(manifest.chunk_keys)
    if manifest.chunk_samples or -(-manifest.n_rows // configured) == n_chunks:
        return manifest.chunk_samples or configured
    return -(-manifest.n_rows // n_chunks)
