"""MP3 files of many tags, or of many files: the work is in proportion to their length."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.media.containers import mp3
from omnitrace_core.media.containers.declared import read_at
from tests.core.media.sound.test_track import RATE, decode, write_wav
from tests.core.media_files import beep, run_ffmpeg

_TAGS = {
    "ID3": b"ID3\4\0\0\0\0\0\0",
    "APE": b"APETAGEX" + bytes(24),
    "ID3v1": b"TAG" + bytes(125),
    "Lyrics3": b"LYRICSBEGIN00LYRICSEND",
}


@pytest.mark.parametrize("tag", _TAGS)
@pytest.mark.parametrize("is_last", [True, False])
def test_many_tags_of_an_mp3_are_read_once_each(
    tmp_path: Path, tag: str, is_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = write_wav(tmp_path / "a.wav", beep(1, [0.5], RATE))
    run_ffmpeg("-i", wav, "-id3v2_version", "0", "-write_xing", "0", tmp_path / "a.mp3")
    data = (tmp_path / "a.mp3").read_bytes()
    n_read = 0

    def counted(file: BinaryIO, at: int, n: int) -> bytes:
        nonlocal n_read
        block = read_at(file, at, n)
        n_read += len(block)
        return block

    monkeypatch.setattr(mp3, "read_at", counted)
    for n, is_read in ((100, True), (2_000, True), (100_000, False)):
        tagged = data + _TAGS[tag] * n + (b"" if is_last else data)
        (tmp_path / "tagged.mp3").write_bytes(tagged)
        n_read = 0
        with (tmp_path / "tagged.mp3").open("rb") as file:
            pieces, declared = mp3.pieces(file, len(tagged))
        what = "" if is_read else "more than 10,000 tags or files; encode it again"
        assert declared.fault == what
        assert len(pieces) == (1 if is_last or not is_read else 2)
        # 8 kB at most for a tag, which is short, and some for the frames.
        assert n_read < 10_000 * min(n, 10_000) + 10 * len(data) + 100_000


def test_many_short_mp3_that_are_joined(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", beep(0.1, [0.0], RATE))
    run_ffmpeg("-i", wav, "-id3v2_version", "0", "-write_xing", "0", tmp_path / "a.mp3")
    data = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes((data + _TAGS["ID3v1"]) * 300)
    n_frames = round(decode(tmp_path / "a.mp3").duration_s * RATE / 1152)
    assert n_frames % 300 == 0
    (tmp_path / "a.mp3").write_bytes((data + _TAGS["ID3v1"]) * 10_001)
    with pytest.raises(MediaCorrupt, match="more than 10,000 tags or files"):
        decode(tmp_path / "a.mp3")
