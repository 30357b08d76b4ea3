"""Start the misbehaving decoder in a child process, and look at processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from PIL import Image

from omnitrace_core.decoded_media import DecodedImage
from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.records import Part
from tests.core.media_files import image_bytes

MODULE = "tests.core.media.isolation.misbehaving_decoder"
MISBEHAVING = f"{MODULE}:decode"
CLOCKED = "tests.core.media.isolation.clocked_decoder:decode"
RULES = MediaRules()
PHOTO = image_bytes(Image.effect_noise((112, 84), 50).convert("RGB"))


def do(isolated: IsolatedDecoder, order: str) -> DecodedImage:
    """Give the misbehaving decoder an order; its answer is in `sha256`."""
    decoded = isolated.decode_part(Part("image", text=order, uri="a.png"))
    assert isinstance(decoded, DecodedImage)
    return decoded


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def alive(pid: int) -> bool:
    """Whether a process of this id runs; one that waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def ends(pid: int) -> bool:
    """Whether the process ends within some seconds."""
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)
