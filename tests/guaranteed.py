"""The test files that docs/guarantees.md names; as a program, print them for `make faults`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def guaranteed_files() -> set[str]:
    """Paths of the files from the root: of all tests by their names, and of files by their paths.

    Raises:
        LookupError: there is no such test or file.
    """
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    files_of: dict[str, set[str]] = {}
    for file in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), flags=re.M):
            files_of.setdefault(name, set()).add(file.relative_to(ROOT).as_posix())
    named = set(re.findall(r"`(test_\w+)`", page))
    if missing := named - files_of.keys():
        raise LookupError(f"docs/guarantees.md names tests that do not exist: {sorted(missing)}")
    files = set().union(*(files_of[name] for name in named))
    for pattern in re.findall(r"`(tests/\S+?)`", page):
        found = {file.relative_to(ROOT).as_posix() for file in ROOT.glob(pattern)}
        if not found:
            raise LookupError(f"docs/guarantees.md names {pattern}, which does not exist")
        files |= found
    return files


if __name__ == "__main__":
    print(*sorted(guaranteed_files()))
