"""What of a video's sound is heard where it begins earlier or ends later than the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.errors import MediaTooLarge
from omnitrace_core.options import MediaOptions
from tests.core.media.sound.test_track import RATE, decode, decode_video, tone, write_wav
from tests.core.media_files import beep, onset_s, run_ffmpeg, write_clip


def write_video(path: Path, wave: np.ndarray, rate: int, *output: str) -> Path:
    """Two seconds of frames, with a sound."""
    clip = write_clip(path.with_name("clip.mp4"), 20)
    wav = write_wav(path.with_name("a.wav"), wave, rate)
    run_ffmpeg("-i", clip, "-i", wav, "-map", "0:v", "-map", "1:a", "-c:v", "copy", *output, path)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mov", "pcm_s16le", 8_000),
        ("a.mkv", "pcm_s16le", 8_000),
        ("a.mkv", "flac", 16_000),
        ("a.mp4", "alac", 16_000),
    ],
)
def test_sound_behind_the_last_frame_is_heard(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    """1,800 samples are less than some codecs add, but these store each sample."""
    seconds = 2 + 1_800 / rate
    wave = tone(seconds, rate=rate)
    video = decode_video(write_video(tmp_path / name, wave, rate, "-c:a", codec))
    assert video.sound is not None
    end_s = video.sound.start_s + len(video.sound.waveform) / 16_000
    assert end_s == pytest.approx(video.duration_s, abs=1e-3)
    assert end_s - video.start_s >= seconds - 1e-3
    # The last 20 ms of the tone.
    last = video.sound.waveform[round((seconds - 0.02) * 16_000) :][:320]
    assert np.abs(last).max() > 0.2


@pytest.mark.parametrize("is_loud", [True, False])
@pytest.mark.parametrize("n_blocks", [86, 87, 88])
def test_only_the_rest_of_a_block_behind_the_last_frame_is_left_out(
    tmp_path: Path, n_blocks: int, is_loud: bool
) -> None:
    """Blocks of AAC, one more without sound before them; the frames last 2 s, 86.1 blocks."""
    wave = tone(n_blocks * 1024 / RATE)
    wave[:] *= 1 if is_loud else np.arange(len(wave)) < 1.9 * RATE
    video = decode_video(write_video(tmp_path / "a.avi", wave, RATE, "-c:a", "aac"))
    assert video.sound is not None
    end_s = video.sound.start_s + len(video.sound.waveform) / 16_000
    assert end_s == pytest.approx(video.duration_s, abs=2e-4)
    longer_s = (n_blocks + 1) * 1024 / RATE - 2
    expected = 0.0 if longer_s <= 1024 / RATE else longer_s
    assert video.duration_s - video.end_s == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("codec", ["pcm_s16le", "flac"])
def test_codecs_that_store_each_sample_add_none(tmp_path: Path, codec: str) -> None:
    wave = tone(2.1, rate=8_000)
    wave[15_000:] = 0
    video = decode_video(write_video(tmp_path / "a.mkv", wave, 8_000, "-c:a", codec))
    assert video.duration_s == pytest.approx(2.1, abs=1e-3)


def test_sound_before_the_first_frame_is_noted(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 20)
    wav = write_wav(tmp_path / "a.wav", beep(3, [1.5], RATE))
    late: list[str | Path] = ["-itsoffset", "0.7", "-i", clip, "-i", wav]
    run_ffmpeg(*late, "-c:v", "copy", "-c:a", "aac", tmp_path / "late.mp4")
    note = "0.70 s of sound before the first frame are left out"
    assert note in decode_video(tmp_path / "late.mp4").notes
    assert decode_video(tmp_path / "late.mp4", video_start=1.0).notes == ()
    assert decode_video(write_video(tmp_path / "b.mp4", tone(2), RATE, "-c:a", "aac")).notes == ()


def test_subtitles_that_outlast_the_sound_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:00,500 --> 00:00:12,000\nlong\n")
    clip = write_clip(tmp_path / "clip.mp4", 20, sound=beep(2, [0.5], RATE))
    run_ffmpeg("-i", clip, "-i", tmp_path / "a.srt", "-map", "0", "-map", "1", tmp_path / "a.mkv")
    heard = decode(tmp_path / "a.mkv", MediaOptions(max_audio_s=3.0))
    assert heard.duration_s == pytest.approx(2.0, abs=0.001)
    assert decode_video(tmp_path / "a.mkv", MediaOptions(max_video_s=3.0)).sound is not None
    with pytest.raises(MediaTooLarge, match=r"2\.\d s, above media\.max_audio_s=1\.0"):
        decode(tmp_path / "a.mkv", MediaOptions(max_audio_s=1.0))


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_mp3_in_wav_is_not_truncated(tmp_path: Path, rate: int) -> None:
    wav = write_wav(tmp_path / "a.wav", beep(2.3, [0.5], rate), rate)
    run_ffmpeg("-i", wav, "-c:a", "libmp3lame", "-f", "wav", tmp_path / "mp3.wav")
    heard = decode(tmp_path / "mp3.wav")
    assert 2.3 <= heard.duration_s < 2.3 + 3 * 1152 / rate
    assert len(heard.waveform) == pytest.approx(heard.duration_s * 16_000, abs=2)
    assert onset_s(heard.waveform, 16_000) == pytest.approx(0.5 + 1105 / rate, abs=0.002)
