"""The published files of a run and their manifests, as listings show them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pipeline.run_folder.manifests import MANIFESTS
from pipeline.storage.folder import Folder
from stages.arrow.table_schema import TABLES


@dataclass(frozen=True, slots=True)
class PublishedFiles:
    """Bytes of each file in the tables, and of each manifest, by their names in the run's folder.

    Files that are still being written are left out.
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
    manifests = _sizes(folder, MANIFESTS, ".json")
    tables = {
        name: size for table in TABLES for name, size in _sizes(folder, table, ".parquet").items()
    }
    return PublishedFiles(tables, manifests)


def _sizes(folder: Folder, subfolder: str, suffix: str) -> dict[str, int]:
    found = folder.sizes(subfolder, suffix)
    return {f"{subfolder}/{name}": size for name, size in found.items() if name[0] != "."}
