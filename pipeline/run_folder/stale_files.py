"""Delete published files that the plan does not have, and invalidate incomplete shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.planning.plan import Plan, shard_label
from pipeline.run_folder.attempt_log import ATTEMPTS
from pipeline.run_folder.chunk_files import CHUNK_FILES
from pipeline.run_folder.lease_file import LEASE
from pipeline.run_folder.manifests import MANIFESTS, Manifest, manifest_name
from pipeline.run_folder.publish import Confirm
from pipeline.run_folder.table_files import table_name
from pipeline.storage.folder import PARTIAL, Folder
from stages.arrow.table_schema import TABLES


def delete_stale_files(
    folder: Folder,
    manifests: dict[str, Manifest],
    plan: Plan,
    confirm: Confirm = lambda: None,
) -> list[str]:
    """Delete the files of shards that left the input, and temporary files of killed writers.

    Afterwards a glob over a table finds each span of the present input once. A file without a
    manifest that the plan will replace is emptied and not deleted: a deletion cannot be made
    conditional, so a late one could delete what another driver has published meanwhile.

    confirm: raises if this process may not change the run's files any more; called before each
    change. Returns the names of the shards whose files are deleted.
    """
    planned = {shard.name for shard in plan.shards}
    removed = [manifest for name, manifest in manifests.items() if name not in planned]
    for manifest in removed:
        confirm()
        # Before its files: a manifest must not name files that are missing.
        folder.delete(manifest_name(manifest.number))
        for table in TABLES:
            confirm()
            folder.delete(table_name(table, manifest.number))
    planned_labels = {shard_label(shard.number) for shard in plan.shards}
    for name in _orphans(folder):
        table, _, file = name.partition("/")
        if table in TABLES and file.removesuffix(".parquet") in planned_labels:
            _empty(folder, name, TABLES[table], confirm)
        else:
            confirm()
            folder.delete(name)
    return [manifest.shard for manifest in removed]


def invalidate_missing_files(
    folder: Folder, manifests: Mapping[str, Manifest]
) -> dict[str, Manifest]:
    """The manifests, with an empty key where one of the manifest's files is missing.

    Such a shard counts as not published, and is done again under its number.
    """
    existing = {f"{table}/{name}" for table in TABLES for name in folder.names(table)}
    return {
        shard: manifest if manifest.files.keys() <= existing else replace(manifest, key="")
        for shard, manifest in manifests.items()
    }


def _empty(folder: Folder, name: str, schema: pa.Schema, confirm: Confirm) -> None:
    """Replace a published file that has no manifest by one without rows."""
    content = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), content)
    # If another driver has written the file meanwhile, publishing its shard replaces it.
    with suppress(FileExistsError):
        folder.replace(name, content.getvalue().to_pybytes(), confirm)


def _orphans(folder: Folder) -> Iterator[str]:
    """Names of published files without a manifest, and of temporary files of killed writers."""
    listed = {table: folder.names(table) for table in TABLES}
    # Listed after the files, so that a shard published meanwhile has its manifest in the list.
    labels = {name.removesuffix(".json") for name in folder.names(MANIFESTS, suffix=".json")}
    for table, names in listed.items():
        for name in names:
            label = name.removesuffix(".parquet")
            if name.endswith(PARTIAL) or (label != name and label not in labels):
                yield f"{table}/{name}"
    for subfolder in (CHUNK_FILES, MANIFESTS, ATTEMPTS):
        for name in folder.names(subfolder, suffix=PARTIAL):
            yield f"{subfolder}/{name}"
    # Not those of the lease: a renewal may be about to rename one.
    yield from (name for name in folder.names(suffix=PARTIAL) if LEASE not in name)
