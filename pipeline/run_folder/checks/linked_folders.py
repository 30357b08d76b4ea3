"""Check the subfolders of a run: each is a folder of its own, or a link to one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omnitrace_core.errors import ConfigError
from pipeline.run_folder.attempt_log import ATTEMPTS
from pipeline.run_folder.chunk_files import CHUNK_FILES
from pipeline.run_folder.lease_file import LEASE
from pipeline.run_folder.manifests import MANIFESTS
from pipeline.run_folder.table_files import STAGED
from pipeline.storage.addresses import absolute_path, is_url
from pipeline.storage.folder import Folder
from stages.arrow.table_schema import TABLES

SUBFOLDERS = (*TABLES, MANIFESTS, CHUNK_FILES, ATTEMPTS, STAGED)


def check_subfolders(run: Folder, sources: Sequence[str] = ()) -> None:
    """Check a run's folder and subfolders; object stores have no links, and pass.

    A link to a folder works, for example to keep chunk files on a fast disk. The link stays; the
    run's own files in it are deleted as in any other folder.

    sources: what the run reads: its input, and the run that it curates.

    Raises:
        ConfigError: one is a file, a link to a file or to nothing, or leads to a folder which is,
            contains, or lies in a source, another run, or another subfolder.
    """
    if not run.is_local:
        return
    root = Path(run.root)
    _check_folder(root)
    places: dict[Path, Path] = {}
    for name in SUBFOLDERS:
        path = root / name
        _check_folder(path)
        real = Path(os.path.realpath(path))
        if path.is_symlink():
            _check_target(path, real, root.resolve(), sources)
        for other_real, other in places.items():
            if real == other_real:
                raise ConfigError(
                    f"{path} and {other} are the same folder, {real}: files of one would replace "
                    "those of the other; give each a folder of its own"
                )
            if relation := _relation(real, other_real):
                raise ConfigError(
                    f"{path} is {real}, which {relation} {other_real}, that is {other}; give each "
                    "a folder of its own"
                )
        places[real] = path


def _check_target(path: Path, real: Path, root: Path, sources: Sequence[str]) -> None:
    if real in (root, *root.parents):
        raise ConfigError(f"{path} is a link to {real}, in which it lies; delete the link")
    for source in sources:
        if is_url(source):
            continue
        if relation := _relation(real, Path(os.path.realpath(absolute_path(source)))):
            raise ConfigError(
                f"{path} is a link to {real}, which {relation} {source}, and the run reads that; "
                "let it lead to a folder of its own"
            )
    for place in (real, *real.parents):
        if place != root and (place / LEASE).exists():
            raise ConfigError(
                f"{path} is a link to {real}, which lies in the folder of another run, {place}; "
                "let it lead to a folder of its own"
            )


def _relation(one: Path, other: Path) -> str:
    """How one place lies to another, as a verb; empty if they have nothing in common."""
    if one == other:
        return "is"
    if other in one.parents:
        return "lies in"
    return "contains" if one in other.parents else ""


def _check_folder(path: Path) -> None:
    if not os.path.lexists(path) or path.is_dir():
        return
    if path.is_symlink():
        raise ConfigError(
            f"{path} is a link to {os.readlink(path)}, which is not a folder; create that folder, "
            "or delete the link"
        )
    raise ConfigError(f"{path} is a file, and the run needs a folder of this name; delete the file")
