"""The published files of a run and their manifests, as listings show them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pipeline.planning.plan import number_of_label
from pipeline.run_folder.manifests import MANIFESTS
from pipeline.storage.folder import Folder
from stages.arrow.table_schema import TABLES


@dataclass(frozen=True, slots=True)
class PublishedFiles:
    """Bytes of each file in the tables, and of each manifest, by their names in the run's folder.

    In the tables, that is each Parquet file which some reader of the table would read: also below
    subfolders, and with `.PARQUET`. Files that are still being written are left out.
    """

    tables: dict[str, int]
    manifests: dict[str, int]

    @property
    def digest(self) -> str:
        """Hash of all names and sizes."""
        found = sorted([*self.tables.items(), *self.manifests.items()])
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:32]


def list_published(folder: Folder) -> PublishedFiles:
    """List them: on S3 one request for the manifests and for each table, per 1,000 files."""
    manifests = _visible(MANIFESTS, folder.sizes(MANIFESTS, ".json"))
    tables: dict[str, int] = {}
    for table in TABLES:
        found = folder.sizes(table, deep=True)
        tables |= _visible(
            table, {name: n for name, n in found.items() if name.lower().endswith(".parquet")}
        )
    return PublishedFiles(tables, manifests)


def number_of_file(name: str) -> int | None:
    """Number of the shard whose manifest or published file this is; None for any other file.

    name: in the run's folder.
    """
    place, _, file = name.partition("/")
    label = file.removesuffix(".json" if place == MANIFESTS else ".parquet")
    return None if label == file else number_of_label(label)


def _visible(subfolder: str, found: dict[str, int]) -> dict[str, int]:
    """The files that are not hidden, nor lie in a hidden folder, by their names in the run's."""
    return {
        f"{subfolder}/{name}": size
        for name, size in found.items()
        if not any(part.startswith(".") for part in name.split("/"))
    }
