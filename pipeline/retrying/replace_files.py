"""Replace the published files of a shard by staged ones: all of them, or none.

The new files are first written under other names. Then one write of the shard's manifest decides:
from then on it holds the manifest of the new files, and no valid key. After that each staged file
is copied over its published file, and the new manifest is written. If the driver dies in between,
the next one repeats these copies before it does anything else.

Staged files are deleted only after the new manifest is written. Their names hold the driver's
epoch, so a driver that was suspended cannot change those of its successor.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.planning.plan import shard_label
from pipeline.run_folder.manifests import Manifest, Replacement, read_manifest, write_manifest
from pipeline.run_folder.publish import Confirm
from pipeline.run_folder.table_files import STAGED, table_name
from pipeline.storage.folder import Folder

# samples/ last: a row that failed has no rows in the other tables. So whoever begins with samples/
# sees either the old or the new rows, at any moment between two copies.
_ORDER = ("traces", "heatmaps", "spans", "samples")


def staged_name(epoch: int, table: str, number: int) -> str:
    """Name of a staged file within the run's folder; no glob for Parquet files finds it."""
    return f"{STAGED}/{epoch:06d}.{shard_label(number)}.{table}"


def replace_files(folder: Folder, old: Manifest, new: Manifest, confirm: Confirm) -> Manifest:
    """Replace a shard's published files by those that the driver of `new.epoch` has staged.

    old, new: the manifests of both. confirm: see `Folder.replace`. Returns `new`.

    Raises:
        FileExistsError: others keep writing the shard's files, though the run is ours.
    """
    versions = {name: folder.version(name) for name in old.files}
    return _replace(folder, old, Replacement(new, new.epoch, old.key, versions), confirm)


def finish_replacement(
    folder: Folder, number: int, epoch: int, confirm: Confirm
) -> Manifest | None:
    """Finish what a driver began that died in `replace_files`; returns the shard's manifest.

    epoch: of this driver. If the staged files are gone, the old files are valid if none of them
    was replaced; else the shard counts as not published.
    """
    found = read_manifest(folder, number)
    if found is None or found.replacement is None:
        return found
    begun = found.replacement
    try:
        for name, copy in zip(_staged(begun, begun.staged_by), _staged(begun, epoch), strict=True):
            folder.copy(name, folder, confirm, as_name=copy)
    except FileNotFoundError:
        # Only after a late write: a driver that was suspended before it wrote this manifest, and
        # whose successor has deleted its files. Then it has replaced nothing.
        untouched = all(folder.version(name) == v for name, v in begun.versions.items())
        old = replace(found, key=begun.key if untouched else "", replacement=None)
        write_manifest(folder, old, confirm)
        return old
    old = replace(found, key=begun.key)
    new = _replace(folder, old, replace(begun, staged_by=epoch), confirm)
    folder.delete_many(_staged(begun, begun.staged_by))
    return new


def _replace(folder: Folder, old: Manifest, begun: Replacement, confirm: Confirm) -> Manifest:
    # The commit. The old manifest is not valid from here on.
    write_manifest(folder, replace(old, key="", replacement=begun), confirm)
    try:
        _copy_staged(folder, begun, confirm)
    except FileExistsError:
        # If the run is still ours, an earlier driver wrote late: try once more.
        confirm()
        _copy_staged(folder, begun, confirm)
    write_manifest(folder, begun.manifest, confirm)
    confirm()
    folder.delete_many(_staged(begun, begun.staged_by))
    return begun.manifest


def _copy_staged(folder: Folder, begun: Replacement, confirm: Confirm) -> None:
    number = begun.manifest.number
    for table, staged in zip(_tables(begun), _staged(begun, begun.staged_by), strict=True):
        folder.copy(staged, folder, confirm, as_name=table_name(table, number))


def _tables(begun: Replacement) -> list[str]:
    files = begun.manifest.files
    return [table for table in _ORDER if table_name(table, begun.manifest.number) in files]


def _staged(begun: Replacement, epoch: int) -> list[str]:
    return [staged_name(epoch, table, begun.manifest.number) for table in _tables(begun)]
