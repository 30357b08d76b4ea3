"""No file of a listed kind makes a decoder open another file or reach a host."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnitrace_core.errors import MediaError
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Modality, Part
from tests.core.media.hostile import (
    disguised,
    linked_matroska,
    movies,
    tagged,
    texts,
    whole_files,
)
from tests.core.media.traps import Traps, set_traps
from tests.core.media_files import beep, write_clip

READERS = ("pyav", "decord")
KINDS: tuple[Modality, ...] = ("video", "audio")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with sound."""
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    return write_clip(path, 10, sound=beep(1.0, [0.5]), sound_rate=16_000)


@pytest.fixture
def traps(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traps]:
    """A readable clip beside the files that are decoded, with nobody to open it."""
    plant = tmp_path / "plant.mp4"
    shutil.copy(clip, plant)
    monkeypatch.chdir(tmp_path)
    with set_traps([plant]) as traps:
        yield traps


def decode(path: Path | str, data: bytes | None, reader: str) -> list[str]:
    """Decode a file as video and as audio; "read" or the code of the error of each."""
    if data is not None:
        Path(path).write_bytes(data)
    said = []
    for kind in KINDS:
        try:
            decode_part(Part(kind, uri=str(path)), MediaOptions(video_reader=reader), MediaRules())
            said.append("read")
        except MediaError as error:
            said.append(error.code)
    return said


def followed(traps: Traps, path: Path, *options: str) -> list[str]:
    """What FFmpeg's program touches when it is allowed to; it may wait for the host then."""
    import imageio_ffmpeg

    allowed = ["-protocol_whitelist", "file,http,tcp,crypto", *options]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", *allowed, "-i", str(path)]
    with subprocess.Popen([*command, "-f", "null", "-"], stdin=subprocess.DEVNULL) as process:
        touched: list[str] = []
        while not touched and process.poll() is None:
            time.sleep(0.02)
            touched = traps.touched()
        process.kill()
    return touched + traps.touched()


def test_the_files_are_hostile_and_the_traps_notice(
    traps: Traps, clip: Path, tmp_path: Path
) -> None:
    assert traps.touched() == []
    path = tmp_path / "hostile"
    listed = texts(traps.files[0], traps.port)
    for name, options, seen in (
        ("ffconcat", ("-f", "concat", "-safe", "0"), "a planted file was opened"),
        ("mpd", ("-f", "dash", "-allowed_extensions", "ALL"), "a connection was made"),
        ("m3u8-key", ("-f", "hls", "-extension_picky", "0"), "a connection was made"),
    ):
        path.write_bytes(listed[name])
        assert seen in followed(traps, path, *options), name
    for name, data in movies(clip.read_bytes(), traps.files[0], traps.port):
        if name.startswith("alias"):
            path.write_bytes(data)
            drefs = ("-enable_drefs", "1", "-use_absolute_path", "1")
            assert "a planted file was opened" in followed(traps, path, "-f", "mov", *drefs), name
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", traps.port))
    assert "a datagram came" in traps.touched()


@pytest.mark.parametrize("reader", READERS)
def test_texts_that_name_files_within_every_kind(
    reader: str, traps: Traps, clip: Path, tmp_path: Path
) -> None:
    whole = whole_files(clip.read_bytes())
    n = 0
    for text_name, text in texts(traps.files[0], traps.port).items():
        for name, data in disguised(text, whole):
            said = decode(tmp_path / f"a.{text_name}", data, reader)
            assert traps.touched() == [], (text_name, name, said)
            n += 1
    assert n > 150


@pytest.mark.parametrize("reader", READERS)
def test_movies_that_refer_to_other_files(
    reader: str, traps: Traps, clip: Path, tmp_path: Path
) -> None:
    for name, data in movies(clip.read_bytes(), traps.files[0], traps.port):
        said = decode(tmp_path / "a.mov", data, reader)
        assert traps.touched() == [], (name, said)
        if name.endswith(" 0"):
            assert said[0] == "media_corrupt", name


@pytest.mark.parametrize("reader", READERS)
def test_linked_and_attached_files_and_addresses_in_tags(
    reader: str, traps: Traps, clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    files = [
        *linked_matroska(clip, folder, traps.files[0].name, clip),
        *tagged(clip, folder, traps.files[0], traps.port),
    ]
    assert traps.touched() == []
    for name, data in files:
        said = decode(tmp_path / f"a.{name}", data, reader)
        assert traps.touched() == [], (name, said)
        assert said[0] == "read" or reader == "decord", (name, said)


@pytest.mark.parametrize("reader", READERS)
def test_names_of_files_are_no_addresses(
    reader: str, traps: Traps, clip: Path, tmp_path: Path
) -> None:
    """What FFmpeg takes for a protocol or a pattern is the name of a file, or is refused."""
    plant, port = traps.files[0], traps.port
    for uri in (
        f"concat:{plant}|{plant}",
        f"subfile,,start,0,end,0,,:{plant}",
        f"cache:{plant}",
        f"crypto:{plant}",
        f"async:{plant}",
        f"tcp://127.0.0.1:{port}",
        f"udp://127.0.0.1:{port}",
        f"rtmp://127.0.0.1:{port}/a",
        f"http://127.0.0.1:{port}/a.mp4",
        f"https://127.0.0.1:{port}/a.mp4",
        "plant%d.mp4",
        "pla*.mp4",
        "pipe:0",
    ):
        said = decode(uri, None, reader)
        assert "read" not in said, uri
        assert traps.touched() == [], uri
    for name in ("a:b.mp4", "concat:plant.mp4", "a%03d.mp4", "a.m3u8", "a.sdp", "a.ffconcat"):
        assert decode(tmp_path / name, clip.read_bytes(), reader) == ["read", "read"], name
        assert traps.touched() == [], name
