"""Publish a shard: its chunk files become its table files, then its manifest is written.

Every step can be repeated. The order makes a crash at any point harmless: the manifest is written
after the files it names, and the chunk files are deleted after the manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pipeline.planning.plan import Plan, Shard
from pipeline.run_folder.chunk_files import chunk_file_name, read_chunk_file
from pipeline.run_folder.manifests import (
    Manifest,
    read_manifest,
    write_manifest,
)
from pipeline.run_folder.table_files import table_name, writing_shard
from pipeline.storage.folder import ABSENT, Folder
from pipeline.storage.prefetch import prefetch_map
from pipeline.totals.shard_totals import Totals
from stages.arrow.table_schema import SCHEMA_VERSION, TABLES

READ_THREADS = 8
# Raises if this process may not publish any more; called before each step that others see.
Confirm = Callable[[], None]


def publish_shard(
    folder: Folder,
    plan: Plan,
    shard: Shard,
    tables: Sequence[str],
    confirm: Confirm = lambda: None,
    epoch: int = 0,
    *,
    republish: bool = False,
) -> Manifest:
    """Publish a shard whose chunks all have chunk files; returns its manifest.

    tables: the tables that this run keeps. epoch: of the driver. republish: the shard has a
    manifest, which is invalidated before its files are replaced. Memory: a few chunk files, one row
    group of each table, and the chunks' keys.

    A write replaces only the version that was there before `confirm` was called. So a driver that
    is suspended between the two cannot overwrite what another driver writes meanwhile.

    Raises:
        RunError: a chunk file does not hold its chunk's rows.
        FileExistsError: others keep writing the shard's files, though the run is ours.
    """
    if republish:
        invalidate_manifest(folder, shard.number, confirm)
    try:
        return _publish(folder, plan, shard, tables, confirm, epoch)
    except FileExistsError:
        # If the run is still ours, an earlier driver wrote late: try once more.
        confirm()
        return _publish(folder, plan, shard, tables, confirm, epoch)


def invalidate_manifest(folder: Folder, number: int, confirm: Confirm) -> None:
    """Empty the key in a shard's manifest; its number stays in use.

    Otherwise, if this driver died while it replaced the files, the old manifest would name a mix of
    old and new ones, and would be valid for a plan with the old input.
    """
    manifest = read_manifest(folder, number)
    if manifest is not None and (manifest.key or manifest.replacement):
        write_manifest(folder, replace(manifest, key="", replacement=None), confirm)


def _publish(
    folder: Folder, plan: Plan, shard: Shard, tables: Sequence[str], confirm: Confirm, epoch: int
) -> Manifest:
    with writing_shard(folder, shard.number, tables) as files:
        read = partial(read_chunk_file, folder)
        for records in prefetch_map(read, plan.chunks(shard), READ_THREADS):
            files.add(records)
        confirm()
    keys = [chunk.key for chunk in plan.chunks(shard)]
    manifest = write_shard_manifest(
        folder,
        shard,
        files.n_rows,
        files.errors,
        sizes=files.sizes,
        totals=files.totals,
        fingerprint=plan.fingerprint,
        chunk_samples=plan.chunk_samples,
        chunk_keys=keys,
        epoch=epoch,
        confirm=confirm,
    )
    confirm()
    folder.delete_many([chunk_file_name(key) for key in keys])
    return manifest


def write_shard_manifest(
    folder: Folder,
    shard: Shard,
    n_rows: Mapping[str, int],
    errors: Mapping[tuple[str, str], int],
    *,
    sizes: Mapping[str, int],
    totals: Totals,
    fingerprint: str,
    chunk_samples: int,
    chunk_keys: Sequence[str],
    epoch: int = 0,
    confirm: Confirm = lambda: None,
) -> Manifest:
    """Write the manifest of a shard whose table files are written.

    Before that, delete the shard's files in tables that the run does not keep.

    n_rows, sizes: of the file of each table; bytes that are unknown are left out. errors: number of
    error rows by stage and code. totals: of the records.

    Raises:
        FileExistsError: somebody else wrote the manifest since `confirm` was called.
    """
    not_kept = [table_name(table, shard.number) for table in TABLES if table not in n_rows]
    for name in not_kept:
        if folder.version(name) != ABSENT:
            confirm()
            folder.delete(name)
    by_code, by_stage = errors_by_code_and_stage(errors)
    manifest = Manifest(
        number=shard.number,
        shard=shard.name,
        uri=shard.uri,
        identity=shard.identity,
        key=shard.key,
        fingerprint=fingerprint,
        n_rows=n_rows["samples"],
        n_ok=n_rows["samples"] - sum(by_code.values()),
        n_error=sum(by_code.values()),
        n_spans=n_rows["spans"],
        by_code=by_code,
        by_stage=by_stage,
        chunk_keys=list(chunk_keys),
        files={table_name(table, shard.number): count for table, count in n_rows.items()},
        schema_version=SCHEMA_VERSION,
        chunk_samples=chunk_samples,
        epoch=epoch,
        totals=totals,
        sizes={table_name(table, shard.number): size for table, size in sizes.items()},
    )
    write_manifest(folder, manifest, confirm)
    return manifest


def errors_by_code_and_stage(
    errors: Mapping[tuple[str, str], int],
) -> tuple[dict[str, int], dict[str, int]]:
    """Number of error rows by code, and by stage. errors: by stage and code."""
    by_code: Counter[str] = Counter()
    by_stage: Counter[str] = Counter()
    for (stage, code), count in errors.items():
        by_code[code] += count
        by_stage[stage] += count
    return dict(by_code), dict(by_stage)
