"""Models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

_ASSETS = Path(__file__).resolve().parents[1] / "assets"
# A name that no hub id and no folder of one's own is mistaken for.
SHIPPED = {"omnitrace-tiny": _ASSETS / "omnitrace-tiny"}


def model_location(path: str) -> str:
    """Where a model's files are: the folder of a shipped one, else `path` as it is."""
    return str(SHIPPED.get(path, path))
