"""Check the subfolders of a run: each is a folder of its own, or a link to one."""

from __future__ import annotations

import os
from pathlib import Path

from omnitrace_core.errors import ConfigError
from pipeline.run_folder.attempt_log import ATTEMPTS
from pipeline.run_folder.chunk_files import CHUNK_FILES
from pipeline.run_folder.manifests import MANIFESTS
from pipeline.run_folder.table_files import STAGED
from pipeline.storage.folder import Folder
from stages.arrow.table_schema import TABLES

SUBFOLDERS = (*TABLES, MANIFESTS, CHUNK_FILES, ATTEMPTS, STAGED)


def check_subfolders(run: Folder) -> None:
    """Check a run's folder and subfolders; object stores have no links, and pass.

    A link to a folder works, for example to keep chunk files on a fast disk. The link stays; the
    files in it are deleted as in any other folder.

    Raises:
        ConfigError: one is a file, a link to a file or to nothing, or leads to the same place as
            another.
    """
    if not run.is_local:
        return
    root = Path(run.root)
    _check_folder(root)
    places: dict[str, Path] = {}
    for name in SUBFOLDERS:
        path = root / name
        _check_folder(path)
        real = os.path.realpath(path)
        other = places.setdefault(real, path)
        if other is not path:
            raise ConfigError(
                f"{path} and {other} are the same folder, {real}: files of one would replace those "
                "of the other; give each a folder of its own"
            )
        if path.is_symlink() and Path(real) in (root.resolve(), *root.resolve().parents):
            raise ConfigError(f"{path} is a link to {real}, in which it lies; delete the link")


def _check_folder(path: Path) -> None:
    if not os.path.lexists(path) or path.is_dir():
        return
    if path.is_symlink():
        raise ConfigError(
            f"{path} is a link to {os.readlink(path)}, which is not a folder; create that folder, "
            "or delete the link"
        )
    raise ConfigError(f"{path} is a file, and the run needs a folder of this name; delete the file")
