"""Decoders say that they get on, for whoever waits for them."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from omnitrace_core.media import decode_part, progress
from omnitrace_core.media.fetching import fetch
from omnitrace_core.media.fetching.fetch import media_path
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media.web_server import LISTED, Web, answer
from tests.core.media_files import beep, write_clip


@pytest.mark.parametrize("kind", ["video", "web", "store"])
def test_decoders_say_that_they_get_on(
    kind: str, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs: list[int] = []
    monkeypatch.setattr(progress, "_EVERY_S", 0)
    monkeypatch.setattr(progress._Signs, "tell", lambda: signs.append(1))
    monkeypatch.setattr(fetch, "WebReader", web.reader)
    content = bytes(4 << 20)
    if kind == "video":
        clip = write_clip(tmp_path / "a.mp4", 20, sound=beep(2, [0.5], 44_100))
        decode_part(Part("video", uri=str(clip)), MediaOptions(), MediaRules())
        assert len(signs) >= 4 + 2, "for each frame and each reading of the sound"
        return
    addresses = {"web": "https://media.example.com/a", "store": "memory://signs/a.png"}
    web.answers["/a"] = answer(200, content)
    fsspec.filesystem("memory").pipe_file("/signs/a.png", content)
    with media_path(Part("image", uri=addresses[kind]), MediaOptions(web_hosts=LISTED)):
        assert len(signs) >= 4
