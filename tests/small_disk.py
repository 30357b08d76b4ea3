"""A small file system, to be filled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size at a new folder; skips without the rights of root."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        yield folder
    finally:
        # A decoder that is just ending may still have a file open there.
        subprocess.run(["umount", "-l", str(folder)], check=True)


def use(folder: Path, n_kib: int) -> None:
    """Take this much of a small disk."""
    (folder / "used").write_bytes(bytes(n_kib << 10))


def grow(folder: Path, size: str) -> None:
    """Give a small disk another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
