"""Manifests: one small JSON file per published shard, written after the shard's tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

from omnitrace_core.errors import RunError
from pipeline.from_json import from_json
from pipeline.planning.plan import shard_label
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map
from pipeline.totals.shard_totals import Totals, totals_from_json

MANIFESTS = "_manifests"
_READ_THREADS = 16


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was published for one input shard.

    key: the plan's `Shard.key`; empty if the published files are not valid any more. by_code,
    by_stage: number of error rows of each code and of each stage. files: number of rows of each
    published file. sizes: bytes of each published file as it was written; files that an older
    version wrote are left out. chunk_samples: rows of each chunk but the last, which may be
    shorter; 0 if unknown. epoch: of the driver that published it; 0 if there was no lease. retry:
    number of the last retry of its error rows; n_retried, n_mended: rows that it did again, and of
    these the ok ones. replacement: set while the files are being replaced; `key` is empty then.
    totals: of the shard's records; None if an older version published it.
    """

    number: int
    shard: str
    uri: str
    identity: str
    key: str
    fingerprint: str
    n_rows: int
    n_ok: int
    n_error: int
    n_spans: int
    by_code: dict[str, int]
    by_stage: dict[str, int]
    chunk_keys: list[str]
    files: dict[str, int]
    schema_version: int
    chunk_samples: int = 0
    epoch: int = 0
    retry: int = 0
    n_retried: int = 0
    n_mended: int = 0
    replacement: Replacement | None = None
    totals: Totals | None = None
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replacement:
    """New files of a shard, complete in the run's folder, that are to replace the published ones.

    manifest: of the new files. staged_by: epoch in the names of the staged files. key: of the
    manifest of the old files. versions: of the published files before any was replaced, by name.
    """

    manifest: Manifest
    staged_by: int
    key: str
    versions: dict[str, str]


def manifest_name(number: int) -> str:
    """Name of a manifest within the run's folder."""
    return f"{MANIFESTS}/{shard_label(number)}.json"


def write_manifest(folder: Folder, manifest: Manifest, confirm: Callable[[], None]) -> None:
    """Mark a shard as published. confirm: see `Folder.replace`. Raises: FileExistsError."""
    content = json.dumps(asdict(manifest), indent=1).encode()
    folder.replace(manifest_name(manifest.number), content, confirm)


def read_manifests(folder: Folder, *, with_chunks: bool = True) -> dict[str, Manifest]:
    """All manifests of a run, by the name of the input shard.

    with_chunks: keep the keys of their chunks, which are most of a manifest's size.

    Raises:
        RunError: a file is not a manifest, or two manifests are of the same shard.
    """

    def read(name: str) -> Manifest | None:
        manifest = _read(folder, f"{MANIFESTS}/{name}")
        return manifest if manifest is None or with_chunks else replace(manifest, chunk_keys=[])

    found: dict[str, Manifest] = {}
    names = folder.names(MANIFESTS, suffix=".json")
    for manifest in prefetch_map(read, names, _READ_THREADS):
        if manifest is None:  # deleted by another driver since it was listed
            continue
        if manifest.shard in found:
            raise RunError(
                f"two manifests in {folder.url(MANIFESTS)} are of {manifest.shard}: "
                f"{shard_label(manifest.number)} and {shard_label(found[manifest.shard].number)}; "
                "delete one of them and run again"
            )
        found[manifest.shard] = manifest
    return found


def read_manifest(folder: Folder, number: int) -> Manifest | None:
    """The manifest of this number; None if there is none. Raises: RunError if it is invalid."""
    return _read(folder, manifest_name(number))


def _read(folder: Folder, name: str) -> Manifest | None:
    try:
        return _parse(json.loads(folder.read(name)))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"{folder.url(name)} is not a manifest ({error}); delete it and run again: "
            "its shard will be done again"
        ) from error


def _parse(content: dict[str, Any]) -> Manifest:
    """Raises: KeyError, ValueError, TypeError, AttributeError."""
    known = {item.name for item in fields(Manifest)}
    needed = {
        item.name
        for item in fields(Manifest)
        if item.default is MISSING and item.default_factory is MISSING
    }
    values = {key: content[key] for key in known & content.keys() | needed}
    if replacement := values.get("replacement"):
        values["replacement"] = Replacement(
            **{**replacement, "manifest": _parse(replacement["manifest"])}
        )
    return from_json(Manifest, {**values, "totals": totals_from_json(values.get("totals"))})
