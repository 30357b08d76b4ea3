"""Check that this Python has the packages that benchmarks/h200.sh needs. Exit codes: 0, or 2.

It imports nothing of this repository, which may not be importable yet.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

# Names of modules and of the packages that contain them.
NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "PIL": "pillow",
    "pydantic": "pydantic",
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
}


def main() -> int:
    """Print one line that names what is missing."""
    missing = [package for module, package in NEEDED.items() if not _can_import(module)]
    missing += _transformers()
    if not missing:
        return 0
    print(
        f"benchmarks/h200.sh: {sys.executable} lacks {', '.join(missing)}. Install them, or carry "
        "them as wheels and put their folder on PYTHONPATH (docs/where-to-go-on.md, GPU)",
        file=sys.stderr,
    )
    return 2


def _can_import(module: str) -> bool:
    # It may raise at import if torch has another version; omnitrace_core.runtime handles that.
    if module == "torchvision":
        return importlib.util.find_spec(module) is not None
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _transformers() -> list[str]:
    """What is wrong with transformers: its version, or a package that it needs itself."""
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    lowest = re.findall(r'"transformers>=([0-9.]+)', project)[0]
    try:
        found = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return [f"transformers>={lowest}"]
    if _numbers(found) < _numbers(lowest):
        return [f"transformers>={lowest} (it has {found})"]
    try:
        importlib.import_module("transformers")
    except ImportError as error:
        return [f"what transformers {found} needs ({' '.join(str(error).split())})"]
    return []


def _numbers(version: str) -> list[int]:
    """5 and 23 of 5.23.0."""
    return [int(number) for number in version.split(".")[:2]]


if __name__ == "__main__":
    sys.exit(main())
