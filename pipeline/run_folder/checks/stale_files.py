"""Delete published files that the plan does not have."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.planning.plan import Plan, Shard
from pipeline.run_folder.attempt_log import ATTEMPTS
from pipeline.run_folder.checks.own_files import is_partial
from pipeline.run_folder.checks.retired_numbers import RetiredNumbers
from pipeline.run_folder.chunk_files import CHUNK_FILES
from pipeline.run_folder.lease_file import LEASE
from pipeline.run_folder.manifests import MANIFESTS, Manifest
from pipeline.run_folder.publish import Confirm
from pipeline.run_folder.published_files import number_of_file
from pipeline.storage.folder import PARTIAL, Folder
from stages.arrow.table_schema import TABLES


def delete_stale_files(
    folder: Folder,
    manifests: dict[str, Manifest],
    plan: Plan,
    confirm: Confirm = lambda: None,
    retired: RetiredNumbers | None = None,
) -> list[str]:
    """Delete the files of shards that left the input, and temporary files of killed writers.

    Afterwards a glob over a table finds each span of the present input once. A deletion cannot be
    made conditional, so a late one could delete what another driver has published meanwhile. So
    published files are deleted only under numbers that are retired before. A file without a
    manifest that the plan will replace is emptied, on a condition. Files of a shard that counts as
    published are left alone even if its manifest is gone: somebody removed it a moment ago, and the
    last check of the run reports that (`check_published`).

    confirm: raises if this process may not change the run's files any more; called before each
    change. retired: None if the plan's numbers are never used for another shard. Returns the names
    of the shards whose files are deleted.
    """
    found = _Found(folder)
    planned = {shard.number: shard for shard in plan.shards}
    stale = [name for name, number in found.numbers.items() if number not in planned]
    if retired is not None:
        retired.add(found.numbers[name] for name in stale)
    for name in (*stale, *found.strays):
        confirm()
        folder.delete(name)
    for name in found.without_manifest:
        shard = planned.get(found.numbers[name])
        if shard is not None and not _is_published(shard, manifests):
            _empty(folder, name, TABLES[name.partition("/")[0]], confirm)
    names = {shard.name for shard in plan.shards}
    return [name for name in manifests if name not in names]


def _is_published(shard: Shard, manifests: Mapping[str, Manifest]) -> bool:
    return shard.name in manifests and manifests[shard.name].key == shard.key


class _Found:
    """The files of a run's folder that may have to be deleted.

    numbers: number of the shard of each manifest and published file, manifests first: a manifest
    must not name files that are missing. without_manifest: published files whose shard has no
    manifest. strays: temporary files. Files of any other name are not the run's, and are left to
    the last check of the run (`check_published`).
    """

    def __init__(self, folder: Folder) -> None:
        files = [f"{table}/{name}" for table in TABLES for name in folder.names(table)]
        # Listed after the files, so that a shard published meanwhile has its manifest in the list.
        listed = [f"{MANIFESTS}/{name}" for name in folder.names(MANIFESTS)]
        self.numbers: dict[str, int] = {}
        self.strays: list[str] = []
        for name in (*listed, *files):
            number = number_of_file(name)
            if number is not None:
                self.numbers[name] = number
            elif is_partial(name.partition("/")[2]):
                self.strays.append(name)
        with_manifest = {self.numbers[name] for name in listed if name in self.numbers}
        self.without_manifest = [
            name for name in files if self.numbers.get(name, -1) not in {-1, *with_manifest}
        ]
        for subfolder in (CHUNK_FILES, ATTEMPTS):
            names = folder.names(subfolder, suffix=PARTIAL)
            self.strays += [f"{subfolder}/{name}" for name in names if is_partial(name)]
        # Not those of the lease: a renewal may be about to rename one.
        names = folder.names(suffix=PARTIAL)
        self.strays += [name for name in names if is_partial(name) and LEASE not in name]


def _empty(folder: Folder, name: str, schema: pa.Schema, confirm: Confirm) -> None:
    """Replace a published file that has no manifest by one without rows."""
    content = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), content)
    # If another driver has written the file meanwhile, publishing its shard replaces it.
    with suppress(FileExistsError):
        folder.replace(name, content.getvalue().to_pybytes(), confirm)
