"""Models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from omnitrace_core.errors import BackendError

_ASSETS = Path(__file__).resolve().parents[1] / "assets"
SHIPPED = {"omnitrace-tiny": _ASSETS / "omnitrace-tiny"}


def model_location(path: str) -> str:
    """Where a model's files are: the folder of a shipped one, else `path` as it is.

    The name means the shipped model even beside a folder of that name; `./NAME` means the folder.

    Raises:
        BackendError: the package was installed without it.
    """
    folder = SHIPPED.get(path)
    if folder is None:
        return path
    if not (folder / "config.json").is_file():
        raise BackendError(f"{path} should lie in {folder} and does not; install the package again")
    return str(folder)
