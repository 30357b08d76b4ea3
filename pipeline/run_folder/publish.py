"""Publishing: the parts of a shard become its files in the tables, then its manifest.

Every step can be done again. The order makes a crash at any point harmless: the manifest comes
after the files it speaks of, and the parts go after the manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.planning.plan import Plan, Shard, shard_label
from pipeline.run_folder.attempts import ATTEMPTS
from pipeline.run_folder.chunk_files import CHUNK_FILES, chunk_file_name, read_chunk_file
from pipeline.run_folder.lease_file import LEASE
from pipeline.run_folder.manifests import (
    MANIFESTS,
    Manifest,
    manifest_name,
    read_manifest,
    write_manifest,
)
from pipeline.run_folder.tables import table_name, writing_shard
from pipeline.storage.folder import ABSENT, PARTIAL, Folder
from pipeline.storage.prefetch import prefetch_map
from stages.arrow.schema import SCHEMA_VERSION, TABLES

READERS = 8  # threads that read parts
Confirm = Callable[[], None]


def publish_shard(
    folder: Folder,
    plan: Plan,
    shard: Shard,
    tables: Sequence[str],
    confirm: Confirm = lambda: None,
    epoch: int = 0,
    *,
    again: bool = False,
) -> Manifest:
    """Publish a shard whose chunks all have parts; returns its manifest.

    tables: those that this run keeps. confirm: raises if this process may not publish (any more);
    asked before each step that others see. epoch: of the driver. again: it has a manifest, which
    first ceases to vouch for the files that are about to be replaced. Memory: a few parts, one row
    group of each table, and the chunks' keys.

    What is written replaces only what was there before `confirm` was asked: a driver that sleeps
    between asking and writing comes too late once another has written.

    Raises:
        RunError: a part does not hold its chunk's rows.
        FileExistsError: others go on writing the shard's files, though the run is ours.
    """
    if again:
        _disown(folder, shard, confirm)
    try:
        return _publish(folder, plan, shard, tables, confirm, epoch)
    except FileExistsError:
        # Written late by a driver before us, if the run is still ours.
        confirm()
        return _publish(folder, plan, shard, tables, confirm, epoch)


def _disown(folder: Folder, shard: Shard, confirm: Confirm) -> None:
    """Take the key out of a shard's manifest, so that it is nobody's; its number stays taken.

    Or else, if this driver dies among the files, the next one finds the manifest of the first time
    beside files of both: when the input has changed back, or only a file had vanished.
    """
    manifest = read_manifest(folder, shard.number)
    if manifest is not None and manifest.key:
        write_manifest(folder, replace(manifest, key=""), confirm)


def _publish(
    folder: Folder, plan: Plan, shard: Shard, tables: Sequence[str], confirm: Confirm, epoch: int
) -> Manifest:
    with writing_shard(folder, shard.number, tables) as files:
        for part in prefetch_map(partial(read_chunk_file, folder), plan.chunks(shard), READERS):
            files.add(part)
        confirm()
    keys = [chunk.key for chunk in plan.chunks(shard)]
    manifest = declare(
        folder,
        shard,
        files.n_rows,
        files.errors,
        fingerprint=plan.fingerprint,
        chunk_samples=plan.chunk_samples,
        chunk_keys=keys,
        epoch=epoch,
        confirm=confirm,
    )
    confirm()
    folder.delete_many([chunk_file_name(key) for key in keys])
    return manifest


def declare(
    folder: Folder,
    shard: Shard,
    n_rows: Mapping[str, int],
    errors: Mapping[tuple[str, str], int],
    *,
    fingerprint: str,
    chunk_samples: int,
    chunk_keys: Sequence[str],
    epoch: int = 0,
    confirm: Confirm = lambda: None,
) -> Manifest:
    """Write the manifest of a shard whose files are there; files of other tables go first.

    n_rows: by table. errors: error rows by stage and code.

    Raises:
        FileExistsError: somebody else wrote it since `confirm` was asked.
    """
    others = [table_name(table, shard.number) for table in TABLES if table not in n_rows]
    for stale in [name for name in others if folder.version(name) != ABSENT]:
        confirm()
        folder.delete(stale)
    by_code: Counter[str] = Counter()
    by_stage: Counter[str] = Counter()
    for (stage, code), count in errors.items():
        by_code[code] += count
        by_stage[stage] += count
    manifest = Manifest(
        number=shard.number,
        shard=shard.name,
        uri=shard.uri,
        identity=shard.identity,
        key=shard.key,
        fingerprint=fingerprint,
        n_rows=n_rows["samples"],
        n_ok=n_rows["samples"] - by_code.total(),
        n_error=by_code.total(),
        n_spans=n_rows["spans"],
        by_code=dict(by_code),
        by_stage=dict(by_stage),
        chunk_keys=list(chunk_keys),
        files={table_name(name, shard.number): count for name, count in n_rows.items()},
        schema_version=SCHEMA_VERSION,
        chunk_samples=chunk_samples,
        epoch=epoch,
    )
    write_manifest(folder, manifest, confirm)
    return manifest


# --- what is no longer part of the run ---------------------------------------------------------


def retire(
    folder: Folder,
    manifests: dict[str, Manifest],
    plan: Plan,
    confirm: Confirm = lambda: None,
) -> list[str]:
    """Delete what was published for shards that left the input, and leftovers of crashed writes.

    So a plain glob over a table sees each span of the present input once. What the plan will
    replace is emptied instead: a deletion has no condition, and one that comes late, when another
    driver has published, would take what that one wrote. Returns the names of the shards that are
    gone.
    """
    present = {shard.name for shard in plan.shards}
    gone = [manifest for name, manifest in manifests.items() if name not in present]
    for manifest in gone:
        confirm()
        # First, so that its files are never missed in silence.
        folder.delete(manifest_name(manifest.number))
        for table in TABLES:
            confirm()
            folder.delete(table_name(table, manifest.number))
    planned = {shard_label(shard.number) for shard in plan.shards}
    for name in _orphans(folder):
        table, _, file = name.partition("/")
        if table in TABLES and file.removesuffix(".parquet") in planned:
            _empty(folder, name, TABLES[table], confirm)
        else:
            confirm()
            folder.delete(name)
    return [manifest.shard for manifest in gone]


def whole(folder: Folder, manifests: Mapping[str, Manifest]) -> dict[str, Manifest]:
    """The manifests, each without its key if one of its files is missing.

    So its shard counts as not published, and is done again under its number.
    """
    there = {f"{table}/{name}" for table in TABLES for name in folder.names(table)}
    return {
        shard: manifest if manifest.files.keys() <= there else replace(manifest, key="")
        for shard, manifest in manifests.items()
    }


def _empty(folder: Folder, name: str, schema: pa.Schema, confirm: Confirm) -> None:
    """Leave no row in a published file that has no manifest."""
    content = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), content)
    # Who wrote it meanwhile has the run, or had it; it is replaced when its shard is published.
    with suppress(FileExistsError):
        folder.replace(name, content.getvalue().to_pybytes(), confirm)


def _orphans(folder: Folder) -> Iterator[str]:
    """Published files without a manifest, and temporary files that a killed writer left."""
    listed = {table: folder.names(table) for table in TABLES}
    # Listed after the files, so that what was published meanwhile is no orphan.
    final = {name.removesuffix(".json") for name in folder.names(MANIFESTS, suffix=".json")}
    for table, names in listed.items():
        for name in names:
            stem = name.removesuffix(".parquet")
            if name.endswith(PARTIAL) or (stem != name and stem not in final):
                yield f"{table}/{name}"
    for place in (CHUNK_FILES, MANIFESTS, ATTEMPTS):
        for name in folder.names(place, suffix=PARTIAL):
            yield f"{place}/{name}"
    # But the lease's: a heartbeat may be about to give it its name.
    yield from (name for name in folder.names(suffix=PARTIAL) if LEASE not in name)
