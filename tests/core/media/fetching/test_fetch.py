"""Which addresses are read, and the errors for all others."""

from __future__ import annotations

import hashlib
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from omnitrace_core.errors import (
    InvalidSample,
    MediaDenied,
    MediaEmpty,
    MediaMissing,
    MediaTooLarge,
)
from omnitrace_core.media import decode_part
from omnitrace_core.media.fetching.fetch import read_media
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media_files import image_bytes, write_clip

RULES = MediaRules()
DEFAULTS = MediaOptions()
MEMORY = MediaOptions(allow=("memory://media",))
RED = Image.new("RGB", (112, 84), (200, 30, 40))


def test_reads_paths_file_urls_and_inline_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a file.bin"
    file.write_bytes(b"abc")
    monkeypatch.chdir(tmp_path)
    for uri in (str(file), "a file.bin", f"file://{tmp_path}/a%20file.bin"):
        assert read_media(Part("image", uri=uri), DEFAULTS) == b"abc"
    assert read_media(Part("image", uri="ignored", data=b"xyz"), DEFAULTS) == b"xyz"


def test_reads_object_stores_for_every_decoder(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    png, clip = image_bytes(RED), write_clip(tmp_path / "a.mp4", 10).read_bytes()
    store.pipe({"/media/red.png": png, "/media/clip.mp4": clip})
    image = decode_part(Part("image", uri="memory://media/red.png"), MEMORY, RULES)
    video = decode_part(Part("video", uri="memory://media/clip.mp4"), MEMORY, RULES)
    assert image.sha256 == hashlib.sha256(png).hexdigest()
    assert video.sha256 == hashlib.sha256(clip).hexdigest()
    with pytest.raises(MediaMissing, match=r"memory://media/none\.png"):
        read_media(Part("image", uri="memory://media/none.png"), MEMORY)
    small = MediaOptions(max_bytes=10, allow=MEMORY.allow)
    with pytest.raises(MediaTooLarge, match="max_bytes=10;"):
        read_media(Part("image", uri="memory://media/red.png"), small)


@pytest.mark.parametrize(
    "uri", ["../secret.txt", "link.txt", "%2e%2e/secret.txt", "file:///etc/passwd", "/etc/passwd"]
)
def test_only_files_below_the_roots_are_read(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "fine.txt").write_text("fine")
    monkeypatch.chdir(root)
    options = MediaOptions(roots=(str(root),))
    assert read_media(Part("image", uri="fine.txt"), options) == b"fine"
    # Paths are not decoded: %2e%2e is the name of a folder, which does not exist.
    expected = MediaMissing if "%" in uri else MediaDenied
    with pytest.raises(expected, match=r"outside media\.roots|no such file"):
        read_media(Part("image", uri=uri), options)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1/a.png", "http:// is never read"),
        ("https://example.org/a.png", r"not in media\.web_hosts=\[\]; add it .*or download"),
        ("simplecache::https://example.org/a.png", "of this kind are never read"),
        ("ftp://example.org/a.png", r"media\.allow is not set"),
        ("file://elsewhere/a.png", "a file on another host; use file:///path"),
        ("/dev/zero", "not a regular file"),
        (".", "not a regular file"),
    ],
)
def test_addresses_that_are_denied(uri: str, message: str) -> None:
    with pytest.raises(MediaDenied, match=message):
        read_media(Part("image", uri=uri), DEFAULTS)


@pytest.mark.parametrize("uri", ["no/such.png", "nul\0.png", "x" * 5000])
def test_a_missing_file(uri: str) -> None:
    with pytest.raises(MediaMissing, match="no such file") as caught:
        read_media(Part("image", uri=uri), DEFAULTS)
    assert len(str(caught.value)) < 600


def test_limits_of_size(tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    for part in (Part("audio", uri=str(empty)), Part("audio", data=b"")):
        with pytest.raises(MediaEmpty, match="zero bytes"):
            decode_part(part, DEFAULTS, RULES)
    with pytest.raises(MediaTooLarge, match=r"11 bytes, above media\.max_bytes=10"):
        read_media(Part("image", data=b"x" * 11), MediaOptions(max_bytes=10))
    with pytest.raises(InvalidSample, match="neither uri nor data"):
        read_media(Part("image"), DEFAULTS)


def test_schemes_may_be_in_capitals() -> None:
    with pytest.raises(MediaMissing, match="no such object"):
        read_media(Part("image", uri="MEMORY://media/no.png"), MEMORY)
