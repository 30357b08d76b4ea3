"""MPEG-TS with several programmes: the sound of the video's own one."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnitrace_core.media.containers.mpeg_ts import Programme, programmes
from tests.core.media.sound.test_track import decode, decode_video, pitch, tone, write_wav
from tests.core.media_files import run_ffmpeg, write_clip


def write_broadcast(tmp_path: Path, *tv: str) -> Path:
    """A radio station of 400 Hz, and television; its tracks: radio 0, pictures 1, sounds 2, 3."""
    clip = write_clip(tmp_path / "clip.mp4", 20)
    inputs: list[str | Path] = []
    for k, hertz in enumerate((400, 800, 1200)):
        inputs += ["-i", write_wav(tmp_path / f"{k}.wav", tone(2, hertz))]
    maps = ("-map", "0:a", "-map", "3:v", "-map", "1:a", "-map", "2:a", "-c:a", "aac")
    listed = ["-program", "program_num=7:st=0", "-program", ":".join(["program_num=9", *tv])]
    run_ffmpeg(*inputs, "-i", clip, *maps, "-c:v", "copy", *listed, tmp_path / "a.ts")
    return tmp_path / "a.ts"


def test_the_sound_is_that_of_the_videos_programme(tmp_path: Path) -> None:
    path = write_broadcast(tmp_path, "st=1", "st=2", "st=3")
    with path.open("rb") as file:
        assert programmes(file) == [Programme(7, (256,)), Programme(9, (257, 258, 259))]
    video, radio = decode_video(path), decode(path)
    assert video.sound is not None
    assert pitch(video.sound.waveform) == pytest.approx(800, abs=2)
    assert "of several programmes, the sound is that of number 9" in video.notes
    assert "sound track 1 of 3 is used (they count from 0)" in video.notes
    assert pitch(radio.waveform) == pytest.approx(400, abs=2)
    assert "of several programmes, the sound is that of number 7" in radio.notes
    chosen = decode_video(path, audio_track=0).sound
    assert chosen is not None
    assert pitch(chosen.waveform) == pytest.approx(400, abs=2)


def test_a_programme_without_sound_has_none(tmp_path: Path) -> None:
    path = write_broadcast(tmp_path, "st=1")
    assert decode_video(path).sound is None


def test_damaged_tables_tell_nothing(tmp_path: Path) -> None:
    path = write_broadcast(tmp_path, "st=1", "st=2", "st=3")
    data = path.read_bytes()
    for bad in (b"", data[:100], b"\x47" * 1000, data[:188] + b"\x47\x50\0\x10" + b"\xff" * 184):
        (tmp_path / "bad.ts").write_bytes(bad)
        with (tmp_path / "bad.ts").open("rb") as file:
            assert programmes(file) == []
