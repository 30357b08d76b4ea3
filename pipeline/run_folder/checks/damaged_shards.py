"""Find published shards whose files are missing or hold other rows than their manifest says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.planning.plan import shard_label
from pipeline.run_folder.manifests import Manifest, write_manifest
from pipeline.run_folder.published_files import list_published
from pipeline.run_folder.verdict import read_verdict
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map

_READERS = 16  # threads


def invalidate_damaged_shards(
    folder: Folder, manifests: Mapping[str, Manifest], confirm: Callable[[], None]
) -> dict[str, Manifest]:
    """The manifests, with an empty key for shards that have to be done again.

    These are shards of which a file is missing, or that have a file which the manifest does not
    name. If the run was finished and its files have changed since, then also shards with a file
    that cannot be read or has another number of rows than its manifest says: that takes a read of
    each file. Their manifests are written without their key, so that it is not forgotten if this
    driver dies.

    confirm: see `Folder.replace`.
    """
    found = list_published(folder)
    manifests = invalidate_incomplete(manifests, found.tables)
    verdict = read_verdict(folder) or {}
    if not verdict.get("finished") or verdict.get("files") == found.digest:
        return manifests

    def has_its_rows(manifest: Manifest) -> bool:
        return all(_n_rows(folder, name) == n_rows for name, n_rows in manifest.files.items())

    valid = [manifest for manifest in manifests.values() if manifest.key]
    for manifest, is_whole in zip(valid, prefetch_map(has_its_rows, valid, _READERS), strict=True):
        if not is_whole:
            manifests[manifest.shard] = replace(manifest, key="")
            write_manifest(folder, manifests[manifest.shard], confirm)
    return manifests


def invalidate_incomplete(
    manifests: Mapping[str, Manifest], found: Iterable[str]
) -> dict[str, Manifest]:
    """The manifests, with an empty key where a shard's files are not those that its manifest names.

    Such a shard counts as not published, and is done again under its number.

    found: names of the published files.
    """
    by_label: dict[str, set[str]] = {}
    for name in found:
        label = name.partition("/")[2].removesuffix(".parquet")
        by_label.setdefault(label, set()).add(name)
    return {
        shard: manifest
        if by_label.get(shard_label(manifest.number), set()) == manifest.files.keys()
        else replace(manifest, key="")
        for shard, manifest in manifests.items()
    }


def _n_rows(folder: Folder, name: str) -> int:
    """Rows of a Parquet file by its footer; -1 if it cannot be read."""
    try:
        with folder.open(name) as file, pq.ParquetFile(file) as parquet:
            return int(parquet.metadata.num_rows)
    except (FileNotFoundError, pa.ArrowException):
        return -1
