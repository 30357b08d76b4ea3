"""Find published shards whose files are missing or are not those that were written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    These are the shards that `only_whole` finds. If the run was finished and its files have changed
    since, then also shards with a file that cannot be read or has another number of rows than its
    manifest says: that takes a read of each file. The manifests of the latter are written without
    their key, so that it is not forgotten if this driver dies.

    confirm: see `Folder.replace`.
    """
    found = list_published(folder)
    verdict = read_verdict(folder) or {}
    if verdict.get("finished") and verdict.get("files") == found.digest:
        return _by_listing(manifests, found.tables)
    manifests = only_whole(folder, manifests, found.tables)
    if not verdict.get("finished"):
        return manifests
    for shard in _unreadable(folder, manifests, _all_files):
        manifests[shard] = replace(manifests[shard], key="")
        write_manifest(folder, manifests[shard], confirm)
    return manifests


def only_whole(
    folder: Folder, manifests: Mapping[str, Manifest], found: Mapping[str, int]
) -> dict[str, Manifest]:
    """The manifests, with an empty key where a shard's files are not those that it names.

    Such a shard counts as not published, and is done again under its number. The files must be
    exactly those of the manifest, each with the bytes that were written. Where an older version did
    not record these, the number of rows in the footer is compared.

    found: bytes of each published file, by its name.
    """
    checked = _by_listing(manifests, found)
    for shard in _unreadable(folder, checked, _files_of_unknown_size):
        checked[shard] = replace(checked[shard], key="")
    return checked


def _by_listing(manifests: Mapping[str, Manifest], found: Mapping[str, int]) -> dict[str, Manifest]:
    by_label: dict[str, dict[str, int]] = {}
    for name, size in found.items():
        label = name.partition("/")[2].removesuffix(".parquet")
        by_label.setdefault(label, {})[name] = size

    def is_whole(manifest: Manifest) -> bool:
        files = by_label.get(shard_label(manifest.number), {})
        return files.keys() == manifest.files.keys() and all(
            manifest.sizes.get(name, size) == size for name, size in files.items()
        )

    return {
        shard: manifest if is_whole(manifest) else replace(manifest, key="")
        for shard, manifest in manifests.items()
    }


def _unreadable(
    folder: Folder,
    manifests: Mapping[str, Manifest],
    files_of: Callable[[Manifest], Mapping[str, int]],
) -> list[str]:
    """Names of valid shards with a file whose footer does not say as many rows as the manifest.

    files_of: those that are read, with their numbers of rows.
    """
    valid = [item for item in manifests.values() if item.key and files_of(item)]

    def has_its_rows(manifest: Manifest) -> bool:
        return all(_n_rows(folder, name) == n for name, n in files_of(manifest).items())

    whole = prefetch_map(has_its_rows, valid, _READERS)
    return [item.shard for item, is_whole in zip(valid, whole, strict=True) if not is_whole]


def _all_files(manifest: Manifest) -> Mapping[str, int]:
    return manifest.files


def _files_of_unknown_size(manifest: Manifest) -> Mapping[str, int]:
    return {name: n for name, n in manifest.files.items() if name not in manifest.sizes}


def _n_rows(folder: Folder, name: str) -> int:
    """Rows of a Parquet file by its footer; -1 if it cannot be read."""
    try:
        with folder.open(name) as file, pq.ParquetFile(file) as parquet:
            return int(parquet.metadata.num_rows)
    except (FileNotFoundError, pa.ArrowException):
        return -1
