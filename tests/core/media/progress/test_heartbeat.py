"""Decoders and downloads report their progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from omnitrace_core.media import decode_part
from omnitrace_core.media.fetching import fetch
from omnitrace_core.media.fetching.fetch import media_path
from omnitrace_core.media.progress.heartbeat import report_progress, set_listener
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media.web_server import LISTED, Web, response
from tests.core.media_files import beep, write_clip


@pytest.fixture
def reports() -> Iterator[list[int]]:
    """One entry for every report of progress in this process."""
    reports: list[int] = []
    set_listener(lambda: reports.append(1), min_interval_s=0)
    yield reports
    set_listener(None)


def test_video_decoding_reports_progress(reports: list[int], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 20, sound=beep(2, [0.5], 44_100))
    decode_part(Part("video", uri=str(clip)), MediaOptions(), MediaRules())
    assert len(reports) >= 4 + 2, "for each frame and each pass over the sound"


@pytest.mark.parametrize(
    "address", ["https://media.example.com/a", "memory://reports/a.png"], ids=["web", "store"]
)
def test_downloads_report_progress(
    reports: list[int], address: str, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(4 << 20)
    monkeypatch.setattr(fetch, "WebReader", web.reader)
    web.responses["/a"] = response(200, content)
    fsspec.filesystem("memory").pipe_file("/reports/a.png", content)
    options = MediaOptions(web_hosts=LISTED, allow=("memory://reports/",))
    with media_path(Part("image", uri=address), options):
        assert len(reports) >= 4


def test_frequent_reports_are_dropped() -> None:
    reports: list[int] = []
    set_listener(lambda: reports.append(1), min_interval_s=3600)
    try:
        for _ in range(3):
            report_progress()
    finally:
        set_listener(None)
    assert len(reports) == 1
