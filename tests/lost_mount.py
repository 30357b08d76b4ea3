"""A mount whose server is gone, as of NFS or of a FUSE program that ended."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def lost_mount(folder: Path) -> Iterator[Path]:
    """Mount a FUSE file system over a folder and end its server; skips without root's rights."""
    folder.mkdir(exist_ok=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("this system has no FUSE")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    refused = ctypes.CDLL(None).mount(b"none", os.fsencode(folder), b"fuse", 0, options)
    os.close(server)
    if refused:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
