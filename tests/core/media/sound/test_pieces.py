"""Files that are a later piece of a recording, as of a live stream: their clock is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omnitrace_core.errors import MediaCorrupt, MediaEmpty, MediaTooLarge
from omnitrace_core.options import MediaOptions
from tests.core.media.sound.test_track import RATE, decode, decode_video, write_wav
from tests.core.media_files import beep, onset_s, run_ffmpeg, write_clip

FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "1000000")


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the outermost boxes of an MP4 file."""
    at = 0
    while at < len(data):
        end = at + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def without_fragments(path: Path, first: int, last: int) -> Path:
    """A file with only its fragments `first` to `last`, behind its head."""
    data = path.read_bytes()
    starts = [start for kind, start, _ in boxes(data) if kind == b"moof"] + [len(data)]
    kept = data[: starts[0]] + data[starts[first] : starts[last + 1]]
    path.with_stem("later").write_bytes(kept)
    return path.with_stem("later")


def later(path: Path, seconds: int, rate: int) -> Path:
    """The file with all fragments later by so many seconds; of one track."""
    data = bytearray(path.read_bytes())
    at = -1
    while (at := data.find(b"tfdt", at + 1)) >= 0:
        n = 8 if data[at + 4] else 4
        place = slice(at + 8, at + 8 + n)
        data[place] = (int.from_bytes(data[place], "big") + seconds * rate).to_bytes(n, "big")
    path.write_bytes(data)
    return path


def write_fragments(tmp_path: Path, *output: str) -> Path:
    wav = write_wav(tmp_path / "a.wav", beep(4, [0.5, 1.5, 2.5, 3.5], RATE))
    run_ffmpeg("-i", wav, "-c:a", "aac", *FRAGMENTS, *output, tmp_path / "a.m4a")
    return tmp_path / "a.m4a"


def test_the_last_fragments_alone(tmp_path: Path) -> None:
    whole = write_fragments(tmp_path)
    n = sum(kind == b"moof" for kind, _, _ in boxes(whole.read_bytes()))
    piece = decode(without_fragments(whole, 2, n - 1))
    assert piece.start_s == pytest.approx(2.0, abs=0.1)
    assert piece.duration_s == decode(whole).duration_s
    assert piece.start_s + len(piece.waveform) / 16_000 == pytest.approx(piece.duration_s, abs=1e-3)
    # The encoder's first frame is not marked in such a file.
    assert piece.start_s + onset_s(piece.waveform, 16_000) == pytest.approx(2.523, abs=0.001)
    assert piece.notes == (f"the file begins at {piece.start_s:.2f} s of its clock, which is kept",)
    cut = decode(whole.with_stem("later"), audio_start=3.0, audio_end=3.8)
    assert (cut.start_s, len(cut.waveform), cut.notes) == (3.0, 12_800, ())
    with pytest.raises(MediaEmpty, match=r"its sound begins at 2\.\d+ s, so nothing is before 1"):
        decode(whole.with_stem("later"), audio_end=1.0)


def test_the_limits_count_what_there_is(tmp_path: Path) -> None:
    piece = later(write_fragments(tmp_path), 3_700, RATE)
    heard = decode(piece, MediaOptions(max_audio_s=5, max_heard_s=1.0))
    assert (heard.start_s, len(heard.waveform)) == (3_700, 16_000)
    assert heard.start_s + onset_s(heard.waveform, 16_000) == pytest.approx(3_700.523, abs=0.001)
    assert "heard 1.0 of 4.0 s of sound, as media.max_heard_s says" in heard.notes
    with pytest.raises(MediaTooLarge, match=r"4\.0 s, above media\.max_audio_s=3\.0"):
        decode(piece, MediaOptions(max_audio_s=3.0))


@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
def test_other_containers_that_begin_late(tmp_path: Path, name: str) -> None:
    wav = write_wav(tmp_path / "a.wav", beep(2, [0.5], RATE))
    late = ("-c:a", "aac", "-output_ts_offset", "4000")
    run_ffmpeg("-i", wav, *late, tmp_path / name)
    heard = decode(tmp_path / name)
    assert heard.start_s == pytest.approx(4_000, abs=0.03)
    assert len(heard.waveform) == pytest.approx(32_000, abs=700)
    assert heard.start_s + onset_s(heard.waveform, 16_000) == pytest.approx(4_000.5, abs=0.03)
    with pytest.raises(MediaTooLarge, match=r"2\.\d s, above media\.max_audio_s=1\.0"):
        decode(tmp_path / name, MediaOptions(max_audio_s=1.0))


def test_a_video_of_the_last_fragments(tmp_path: Path) -> None:
    sound = beep(4, [0.5, 1.5, 2.5, 3.5], RATE)
    clip = write_clip(tmp_path / "a.mp4", 40, sound=sound, output=["-g", "10", "-bf", "0"])
    run_ffmpeg("-i", clip, "-c", "copy", *FRAGMENTS, tmp_path / "b.mp4")
    video = decode_video(without_fragments(tmp_path / "b.mp4", 2, 3))
    assert video.sound is not None
    assert video.start_s == pytest.approx(2.0, abs=0.05)
    assert video.sound.start_s == pytest.approx(video.start_s, abs=1e-4)
    heard_s = video.sound.start_s + onset_s(video.sound.waveform, 16_000)
    assert heard_s == pytest.approx(2.5, abs=0.025)


def test_a_sound_that_ends_before_its_declared_end_is_damage(tmp_path: Path) -> None:
    """By a tenth of a second at 8 kHz: less than a long frame, but the codec has none."""
    wav = write_wav(tmp_path / "a.wav", beep(2, [0.5], 8_000), 8_000)
    run_ffmpeg("-i", wav, "-c:a", "pcm_s16le", tmp_path / "a.mov")
    data = bytearray((tmp_path / "a.mov").read_bytes())
    assert decode(tmp_path / "a.mov").duration_s == 2.0
    # How long the edit lasts, how many samples there are, how long they last.
    for name, offset in ((b"elst", 12), (b"stts", 12), (b"mdhd", 20)):
        at = data.index(name) + offset
        assert data[at : at + 4] == (16_000).to_bytes(4, "big")
        data[at : at + 4] = (16_800).to_bytes(4, "big")
    (tmp_path / "a.mov").write_bytes(data)
    with pytest.raises(MediaCorrupt, match=r"2\.000 of 2\.100 s of its sound could be decoded"):
        decode(tmp_path / "a.mov")


def test_frames_of_a_late_fragment_keep_their_clock(tmp_path: Path) -> None:
    """The limit is on what the file shows, not on how late its stream is."""
    clip = write_clip(tmp_path / "a.mp4", 20, output=["-bf", "0"])
    run_ffmpeg(
        "-i", clip, "-c", "copy", "-video_track_timescale", "1000", *FRAGMENTS, tmp_path / "b.mp4"
    )
    video = decode_video(later(tmp_path / "b.mp4", 3_700, 1_000))
    assert video.start_s == pytest.approx(3_700, abs=0.3)
    assert video.end_s - video.start_s == pytest.approx(2.0, abs=0.01)
    with pytest.raises(MediaTooLarge, match=r"2\.0 s, above media\.max_video_s=1\.0"):
        decode_video(tmp_path / "b.mp4", MediaOptions(max_video_s=1.0))
