"""Local files that change while they are read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from omnitrace_core.errors import MediaDenied, MediaError, MediaMissing
from omnitrace_core.media.fetching.fetch import media_path, read_media
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media_files import image_bytes

DEFAULTS = MediaOptions()
RED, GREEN = (image_bytes(Image.new("RGB", (64, 64), name)) for name in ("red", "lime"))


def test_a_link_changed_during_reading_gives_no_other_file(tmp_path: Path) -> None:
    """The checks are made on the opened file, so it does not matter when the link changes."""
    inside, outside = tmp_path / "inside", tmp_path / "outside.png"
    inside.mkdir()
    outside.write_bytes(RED)
    (inside / "good.png").write_bytes(GREEN)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            os.link(inside / "good.png", inside / "t1")
            (inside / "t1").replace(inside / "x.png")
            (inside / "t2").symlink_to(outside)
            (inside / "t2").replace(inside / "x.png")

    changing = threading.Thread(target=change)
    changing.start()
    part, options = Part("image", uri=str(inside / "x.png")), MediaOptions(roots=(str(inside),))
    seen: list[bytes] = []
    for _ in range(3000):
        try:
            seen.append(read_media(part, options))
        except (MediaDenied, MediaMissing):
            continue
    done.set()
    changing.join()
    assert set(seen) == {GREEN}


def test_decoders_read_the_checked_descriptor(tmp_path: Path) -> None:
    """A file that replaces the opened one is not read."""
    file, other = tmp_path / "a.png", tmp_path / "b.png"
    file.write_bytes(GREEN)
    other.write_bytes(RED)
    with media_path(Part("image", uri=str(file)), DEFAULTS) as path:
        other.replace(file)
        assert path.read_bytes() == GREEN


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(GREEN)
    with (
        pytest.raises(MediaError, match="changed while it was read"),
        media_path(Part("image", uri=str(file)), DEFAULTS),
    ):
        file.write_bytes(RED + b"more")
