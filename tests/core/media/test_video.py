"""Decoded videos: their frames, sound and times, and the errors of bad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import InvalidSample, MediaCorrupt, MediaEmpty, MediaTooLarge
from omnitrace_core.media import decode_part
from omnitrace_core.media.frames.sampling import frames_between
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions
from tests.core.media_files import (
    audio_bytes,
    beep,
    grey_index,
    image_bytes,
    onset_s,
    run_ffmpeg,
    write_clip,
)

RULES = MediaRules()
DEFAULTS = MediaOptions()
RED = Image.new("RGB", (112, 84), (200, 30, 40))


def decode_video(path: Path, run: MediaOptions = DEFAULTS, **options: Any) -> DecodedVideo:
    part = Part("video", uri=str(path), options=PartOptions(**options))
    decoded = decode_part(part, run, RULES)
    assert isinstance(decoded, DecodedVideo)
    return decoded


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 40 numbered frames at 10 per second, with a beep at 1.5 s if they have sound."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "sounding.mp4", 40, sound=beep(4, [1.5], 44_100))
    write_clip(folder / "silent.mp4", 40)
    # Frames 0-9 at 10 per second, then one every 0.3 s.
    slowing = "setpts='if(lt(N,10),N,10+(N-10)*3)'"
    write_clip(folder / "vfr.mp4", 40, sound=beep(10, [4], 44_100), video_filter=slowing)
    return folder


def test_sampled_frames_have_their_true_times(clips: Path) -> None:
    video = decode_video(clips / "silent.mp4")
    # 4 s at 2 per second, spread from the first frame to the last.
    expected = [0, 6, 11, 17, 22, 28, 33, 39]
    assert grey_index(video.frames) == expected
    np.testing.assert_allclose(video.frame_times_s, np.array(expected) / 10, atol=1e-9)
    assert (video.start_s, video.end_s, video.duration_s) == (0.0, 4.0, 4.0)
    assert video.fps == pytest.approx(2.0)
    assert (video.width, video.height) == (64, 48)
    assert video.frames.shape[1] % 28 == video.frames.shape[2] % 28 == 0
    assert video.sound is None
    assert video.notes == ()


@pytest.mark.parametrize(
    ("options", "n_expected"),
    [
        ({"fps": 5.0}, 20),
        ({"fps": 0.1}, 4),
        ({"fps": 99.0}, 40),
        ({"fps": 99.0, "max_frames": 15}, 14),
        ({"min_frames": 11}, 12),
        ({"nframes": 7}, 8),
        ({"nframes": 1}, 2),
        ({"nframes": 100}, 40),
    ],
)
def test_number_of_frames(clips: Path, options: dict[str, Any], n_expected: int) -> None:
    video = decode_video(clips / "silent.mp4", **options)
    assert len(video.frames) == len(video.frame_times_s) == n_expected
    assert video.fps == pytest.approx(n_expected / 4.0)
    assert bool(video.notes) == (options == {"nframes": 100})


def test_invalid_options(clips: Path) -> None:
    clip = clips / "silent.mp4"
    rates: list[dict[str, Any]] = [{"nframes": 0}, {"fps": 0.0}, {"fps": -1.0}]
    for options in (*rates, {"fps": 2.0, "nframes": 4}):
        with pytest.raises(InvalidSample, match=r"fps|nframes"):
            decode_video(clip, **options)
    cuts: list[dict[str, Any]] = [{"video_start": 2.0, "video_end": 1.0}, {"video_start": -1.0}]
    for options in cuts:
        with pytest.raises(InvalidSample, match="video_start"):
            decode_video(clip, **options)
    with pytest.raises(MediaEmpty, match="no frame between"):
        decode_video(clip, video_start=9.0)
    # The file decides on this, so another file can mend it.
    with pytest.raises(MediaEmpty, match="no frame between"):
        frames_between(np.array([2.0, 3.0]), None, 1.0, "late.mp4")


def test_cut_keeps_the_files_clock(clips: Path) -> None:
    clip = clips / "sounding.mp4"
    video = decode_video(clip, video_start=1.0, video_end=2.05, fps=10.0)
    assert grey_index(video.frames) == [10, 11, 12, 13, 14, 16, 17, 18, 19, 20]
    np.testing.assert_allclose(video.frame_times_s[[0, -1]], [1.0, 2.0], atol=1e-9)
    assert (video.start_s, video.duration_s) == (1.0, 4.0)
    assert video.end_s == pytest.approx(2.1)
    assert video.sound is not None
    assert video.sound.start_s == 1.0
    assert len(video.sound.waveform) == pytest.approx(1.05 * 16_000, abs=1)
    assert onset_s(video.sound.waveform, 16_000) == pytest.approx(0.5, abs=0.005)


def test_variable_frame_rate(clips: Path) -> None:
    video = decode_video(clips / "vfr.mp4")
    shown = np.array([k / 10 if k < 10 else 1 + (k - 10) * 0.3 for k in range(40)])
    index = grey_index(video.frames)
    assert index[0] == 0
    assert index[-1] == 39
    np.testing.assert_allclose(video.frame_times_s, shown[index], atol=1e-5)
    assert video.sound is not None
    assert onset_s(video.sound.waveform, 16_000) == pytest.approx(4.0, abs=0.005)


def test_sound_is_mixed_resampled_and_cut_to_the_file(clips: Path) -> None:
    video = decode_video(clips / "sounding.mp4")
    assert video.sound is not None
    assert (video.sound.start_s, video.sound.sample_rate) == (0.0, 16_000)
    # The padding of the encoder's last frame is not part of the sound.
    assert (len(video.sound.waveform), video.sound.duration_s) == (64_000, 4.0)
    assert onset_s(video.sound.waveform, 16_000) == pytest.approx(1.5, abs=0.002)


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_stereo_sound_of_any_rate_equals_the_source(tmp_path: Path, rate: int) -> None:
    tone = 0.9 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    stereo = np.stack([tone, tone / 3], axis=1)
    lossless = ("-c:a", "pcm_s16le")
    clip = write_clip(tmp_path / "a.mov", 10, sound=stereo, sound_rate=rate, output=lossless)
    video = decode_video(clip)
    assert video.sound is not None
    expected = 0.6 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    inner = slice(1000, 15_000)
    assert np.abs(video.sound.waveform[inner] - expected[inner]).max() < 1e-3
    assert video.notes == ()


def test_sound_can_be_left_out(clips: Path) -> None:
    part = Part("video", uri=str(clips / "sounding.mp4"))
    silent = decode_part(part, DEFAULTS, RULES, want_sound=False)
    assert isinstance(silent, DecodedVideo)
    assert silent.sound is None
    assert decode_video(clips / "sounding.mp4", MediaOptions(video_sound=False)).sound is None


@pytest.mark.parametrize("n_frames", [1, 2, 3])
def test_very_short_clips(tmp_path: Path, n_frames: int) -> None:
    video = decode_video(write_clip(tmp_path / "short.mp4", n_frames))
    assert grey_index(video.frames) == [0, {1: 0, 2: 1, 3: 2}[n_frames]]
    assert video.end_s == pytest.approx(n_frames / 10)
    note = {1: "only 1 frame; repeated to 2", 3: "2 of its 3 frames sampled"}.get(n_frames, "")
    assert note in " ".join(video.notes)
    assert bool(video.notes) == bool(note)


@pytest.mark.parametrize("name", ["a.mkv", "a.mov", "frag.mp4"])
def test_other_containers(clips: Path, tmp_path: Path, name: str) -> None:
    extra = ["-movflags", "frag_keyframe+empty_moov"] if name == "frag.mp4" else []
    run_ffmpeg("-i", clips / "silent.mp4", "-c", "copy", *extra, tmp_path / name)
    video = decode_video(tmp_path / name)
    # Without an edit list, the reordering of frames delays the first one.
    begin_s = 0.2 if name == "frag.mp4" else 0.0
    np.testing.assert_allclose(
        video.frame_times_s, begin_s + np.array(grey_index(video.frames)) / 10, atol=1e-6
    )
    assert video.duration_s == pytest.approx(begin_s + 4.0)


def test_rotation_is_applied(tmp_path: Path) -> None:
    write_clip(tmp_path / "flat.mp4", 10, size=(96, 64))
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", "90", "-i", tmp_path / "flat.mp4", "-c", "copy", turned)
    video = decode_video(turned)
    assert (video.width, video.height) == (64, 96)
    assert video.frames.shape[1] > video.frames.shape[2]


def test_limits(clips: Path) -> None:
    clip = clips / "sounding.mp4"
    with pytest.raises(MediaTooLarge, match=r"4\.0 s, above media\.max_video_s=3\.0"):
        decode_video(clip, MediaOptions(max_video_s=3.0))
    with pytest.raises(MediaTooLarge, match=r"64x48 = 3,072 pixels"):
        decode_video(clip, MediaOptions(max_image_pixels=3_000))
    with pytest.raises(MediaTooLarge, match=r"nframes=12, above media\.max_frames=6"):
        decode_video(clip, MediaOptions(max_frames=6), nframes=12)
    assert len(decode_video(clip, MediaOptions(max_frames=6)).frames) == 6


def test_sound_longer_than_the_frames_is_limited_too(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "long.mp4", 10, sound=beep(5, [4], 44_100))
    video = decode_video(clip)
    assert video.end_s == 1.0
    assert video.duration_s == pytest.approx(5.0, abs=0.05)
    assert video.sound is not None
    assert onset_s(video.sound.waveform, 16_000) == pytest.approx(4.0, abs=0.005)
    with pytest.raises(MediaTooLarge, match=r"its sound track lasts 5\.0 s"):
        decode_video(clip, MediaOptions(max_video_s=3.0))


@pytest.mark.parametrize("name", ["plain.mp4", "fast.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_truncated_files_are_errors(clips: Path, tmp_path: Path, name: str, share: float) -> None:
    extra = ["-movflags", "+faststart"] if name == "fast.mp4" else []
    codec = "mjpeg" if name == "a.avi" else "copy"
    run_ffmpeg("-i", clips / "sounding.mp4", "-c:v", codec, *extra, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    decode_video(tmp_path / name)
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaCorrupt, match=f"{name}: truncated"):
        decode_video(tmp_path / name)


def test_damaged_frames(clips: Path, tmp_path: Path) -> None:
    data = bytearray((clips / "silent.mp4").read_bytes())
    at = data.index(b"mdat")
    size = int.from_bytes(data[at - 4 : at], "big")
    middle = slice(at + size // 4, at + size // 2)
    data[middle] = np.random.default_rng(0).bytes(middle.stop - middle.start)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    with pytest.raises(MediaCorrupt, match=r"damaged\.mp4: damaged"):
        decode_video(damaged)


def test_files_without_a_video_track(tmp_path: Path) -> None:
    wav, m4a = tmp_path / "a.wav", tmp_path / "a.m4a"
    wav.write_bytes(audio_bytes(beep(1, [0]), 16_000))
    run_ffmpeg("-i", wav, "-c:a", "aac", m4a)
    with pytest.raises(MediaEmpty, match="no video track; is it an audio file"):
        decode_video(m4a)
    ogg = tmp_path / "a.ogg"
    ogg.write_bytes(audio_bytes(beep(1, [0]), 16_000, "OGG"))
    with pytest.raises(MediaCorrupt, match=r"a\.ogg: the bytes are OGG, not video"):
        decode_video(ogg)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (image_bytes(RED), "a picture that is not animated; make its part an image"),
        (audio_bytes(beep(1, [0]), 16_000), "the bytes are WAV, not video"),
        (b"\0\1\2\3" * 999, "no video format that we read"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "no video format that we read"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "no video format that we read"),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 99, "no index"),
        # A movie box that declares 2^63 bytes.
        (b"\0\0\0\x08ftyp\0\0\0\1moov\x80" + b"\0" * 99, "truncated"),
    ],
)
def test_bytes_that_are_not_a_video(data: bytes, message: str) -> None:
    with pytest.raises(MediaCorrupt, match=f"inline video: .*{message}"):
        decode_part(Part("video", data=data), DEFAULTS, RULES)


def test_real_video(shared_data: Path) -> None:
    video = decode_video(next((shared_data / "media").glob("*.mp4")))
    assert (video.width, video.height) == (1280, 720)
    assert len(video.frames) == 22
    assert video.frames.shape[1:] == (448, 812, 3)
    picks = np.linspace(0, 330, 22).round()
    np.testing.assert_allclose(video.frame_times_s, picks / 30, atol=1e-9)
    assert video.fps == pytest.approx(22 / 331 * 30)
    assert video.end_s == pytest.approx(331 / 30)
    # The last 854 samples of its sound, the rest of a block of AAC, are behind the frames.
    assert video.duration_s == pytest.approx(331 / 30)
    assert video.sound is not None
    assert len(video.sound.waveform) / 16_000 <= video.duration_s
    assert video.duration_s - len(video.sound.waveform) / 16_000 < 1e-3
    assert 0.01 < np.abs(video.sound.waveform).mean() < 0.5
