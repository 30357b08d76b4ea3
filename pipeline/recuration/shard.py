"""Curate one shard of a published run again, and publish it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from omnitrace_core.errors import RunError
from omnitrace_core.media_rules import MediaRules
from pipeline.planning.plan import Shard
from pipeline.recuration.plan import Recuration
from pipeline.run_folder.chunk_files import check_chunk_rows, count_by_status
from pipeline.run_folder.commit import CommittedChunk
from pipeline.run_folder.lease_file import Claim, check_claim
from pipeline.run_folder.manifests import Manifest, manifest_name, read_manifest
from pipeline.run_folder.publish import Confirm, write_shard_manifest
from pipeline.run_folder.stored_run import StoredRun
from pipeline.run_folder.stored_shard import check_size, read_shard
from pipeline.run_folder.table_files import ShardWriter, table_name, writing_shard
from stages.arrow.table_schema import SCHEMA_VERSION
from stages.full_addresses import FullAddresses
from stages.records.table_columns import kept_tables
from stages.recurate import Recurate

# A larger batch of samples is not curated faster per sample.
_FAST_BATCH_SAMPLES = 512

# Called with each chunk when it is done.
OnChunkDone: TypeAlias = Callable[[CommittedChunk], None]


def recurate_shard(
    recuration: Recuration, shard: Shard, on_chunk_done: OnChunkDone, claim: Claim
) -> Manifest:
    """Curate and publish a shard; returns its manifest.

    claim: of the driver; checked before each step whose effect others see. Memory: one batch of
    chunks, and one row group of each table.

    Raises:
        RunError: what the run published cannot be read back, or rows were lost.
        LeaseLost: the folder has another driver.
        FileExistsError: others write the shard's files, though this driver has the lease.
    """
    confirm = partial(check_claim, recuration.folder, claim)
    try:
        return _recurate(recuration, shard, on_chunk_done, claim, confirm)
    except FileExistsError:
        # An earlier driver wrote late; try again if the folder is still ours.
        confirm()
        return _recurate(recuration, shard, _report_nothing, claim, confirm)
    except RunError:
        # The files may be others because the run has published the shard again.
        _check_unchanged(recuration.run, recuration.run.manifests[shard.name])
        raise


def _recurate(
    recuration: Recuration,
    shard: Shard,
    on_chunk_done: OnChunkDone,
    claim: Claim,
    confirm: Confirm,
) -> Manifest:
    run, folder, change = recuration.run, recuration.folder, recuration.change
    tables = kept_tables(recuration.config.trace)
    source = run.manifests[shard.name]
    traces_unchanged = not change.changes_traces and source.schema_version == SCHEMA_VERSION
    copied = ["traces"] if traces_unchanged and "traces" in tables else []
    written = [name for name in tables if name not in copied]
    writer = _write(recuration, shard, written, on_chunk_done, confirm)
    if copied and writer.errors.total() > source.n_error:
        # Samples that became errors must have no rows in traces/, so it cannot be copied.
        copied = []
        writer = _write(recuration, shard, tables, _report_nothing, confirm)
    n_rows, sizes = writer.n_rows, writer.sizes
    for name in copied:
        file = table_name(name, shard.number)
        sizes[name] = run.folder.copy(file, folder, confirm)
        n_rows[name] = source.files[file]
        check_size(run.folder, source, file, sizes[name])
    if copied:
        _check_unchanged(run, source)
    return write_shard_manifest(
        folder,
        shard,
        {name: n_rows[name] for name in tables},
        writer.errors,
        sizes={name: sizes[name] for name in tables},
        totals=writer.totals,
        fingerprint=recuration.plan.fingerprint,
        chunk_samples=chunk_samples_of(run, source),
        chunk_keys=source.chunk_keys,
        epoch=claim.epoch,
        confirm=confirm,
    )


def _write(
    recuration: Recuration,
    shard: Shard,
    tables: Sequence[str],
    on_chunk_done: OnChunkDone,
    confirm: Confirm,
) -> ShardWriter:
    """Curate a shard and write its files in `tables`, in the chunks of the run."""
    run, change = recuration.run, recuration.change
    source = run.manifests[shard.name]
    chunk_samples = chunk_samples_of(run, source)
    traces = "traces" in tables
    rules = run.rules or MediaRules()
    recurate = Recurate(
        change,
        rules,
        recuration.plan.fingerprint,
        traces=traces,
        addresses=FullAddresses(source.uri, source.identity),
    )
    columns = change.columns(traces=traces)
    # Slow work is done chunk by chunk, so that progress is visible and the work can be stopped.
    is_slow = change.cuts_spans or change.cuts_units or change.draws_heatmaps
    batch_samples = chunk_samples if is_slow else _FAST_BATCH_SAMPLES
    keys, first_row = iter(source.chunk_keys), 0
    with writing_shard(recuration.folder, shard.number, tables) as writer:
        for batch in read_shard(run.folder, source, chunk_samples, columns, batch_samples):
            records = recurate(batch)
            for start in range(0, len(records), chunk_samples):
                chunk = records.slice(start, chunk_samples)
                n_expected = min(chunk_samples, len(records) - start)
                rows = range(first_row, first_row + n_expected)
                check_chunk_rows(chunk, shard.name, rows)
                writer.add(chunk)
                first_row += len(chunk)
                n_error = count_by_status(chunk)["error"]
                on_chunk_done(CommittedChunk(next(keys), shard.name, len(chunk), n_error))
        _check_unchanged(run, source)
        confirm()
    return writer


def _check_unchanged(run: StoredRun, source: Manifest) -> None:
    """Check that the files that were read are those of the manifest, and not replaced meanwhile.

    Raises:
        RunError: the run published the shard again.
    """
    if read_manifest(run.folder, source.number) != source:
        raise RunError(
            f"{run.folder.url(manifest_name(source.number))} changed while its shard was read: the "
            "run publishes it again; run the same command when the run is finished"
        )


def _report_nothing(chunk: CommittedChunk) -> None:
    """In place of `on_chunk_done` where each chunk was reported before."""


def chunk_samples_of(run: StoredRun, manifest: Manifest) -> int:
    """Rows of each of a shard's chunks but the last, so that its files are cut as the run cut them.

    This may differ from the run's `run.chunk_samples`, which a later start of the run can change.
    Manifests of old runs do not record it; then any size serves that gives as many chunks.
    """
    configured = run.config.run.chunk_samples
    n_chunks = len(manifest.chunk_keys)
    if manifest.chunk_samples:
        return manifest.chunk_samples
    if -(-manifest.n_rows // configured) == n_chunks:
        return configured
    return -(-manifest.n_rows // n_chunks)
