"""Models that are shipped with the package, by name."""

from __future__ import annotations

from pathlib import Path

from omnitrace_core.errors import BackendError

_ASSETS = Path(__file__).resolve().parents[1] / "assets"
SHIPPED = {"omnitrace-tiny": _ASSETS / "omnitrace-tiny"}


def model_location(path: str) -> str:
    """The folder of a shipped model if `path` is its name, else `path` unchanged.

    The name means the shipped model even if the working directory has a folder of that name; write
    `./NAME` for the folder.

    Raises:
        BackendError: the files of the shipped model are not installed.
    """
    folder = SHIPPED.get(path)
    if folder is None:
        return path
    if not (folder / "config.json").is_file():
        raise BackendError(
            f"the files of {path} are missing from {folder}; install the package again"
        )
    return str(folder)
