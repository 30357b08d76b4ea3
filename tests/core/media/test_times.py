"""Frames and sound of a video have times on one clock, in every container."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import MediaCorrupt, MediaTooLarge
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions
from tests.core.media_files import beep, grey_index, onset_s, run_ffmpeg, write_clip

OPUS = ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "1M", "-c:a", "libopus")


def decode_video(path: Path, **options: float) -> DecodedVideo:
    part = Part("video", uri=str(path), options=PartOptions(**options))  # type: ignore[arg-type]
    decoded = decode_part(part, MediaOptions(), MediaRules())
    assert isinstance(decoded, DecodedVideo)
    return decoded


def beep_s(video: DecodedVideo) -> float:
    """Time of the beep on the file's clock, in seconds."""
    assert video.sound is not None
    return video.sound.start_s + onset_s(video.sound.waveform, 16_000)


@pytest.fixture(scope="module")
def sounding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 numbered frames at 10 per second, keyframes among them, with a beep at 1.5 s."""
    path = tmp_path_factory.mktemp("times") / "sounding.mp4"
    return write_clip(path, 40, sound=beep(4, [1.5], 44_100), output=["-g", "12"])


@pytest.mark.parametrize(
    ("before_video", "before_sound", "video_from", "sound_from", "onset"),
    [
        # Both late; frames late; sound late. The beep is 1.5 s after the start of the sound.
        (1.5, 1.5, 1.5, 1.5, 3.0),
        (1.0, 0.0, 1.0, 1.0, 1.5),
        (0.0, 0.5, 0.0, 0.0, 2.0),
    ],
)
def test_streams_that_begin_late(
    sounding: Path,
    tmp_path: Path,
    before_video: float,
    before_sound: float,
    video_from: float,
    sound_from: float,
    onset: float,
) -> None:
    source, shifted = sounding, tmp_path / "late.mp4"
    inputs: list[str | Path] = [
        "-itsoffset",
        str(before_video),
        "-i",
        source,
        "-itsoffset",
        str(before_sound),
    ]
    streams: list[str | Path] = ["-i", source, "-map", "0:v", "-map", "1:a", "-c", "copy"]
    run_ffmpeg(*inputs, *streams, shifted)
    video = decode_video(shifted)
    np.testing.assert_allclose(
        video.frame_times_s, video_from + np.array(grey_index(video.frames)) / 10, atol=1e-3
    )
    assert video.sound is not None
    assert video.sound.start_s == pytest.approx(sound_from, abs=1e-3)
    found_s = video.sound.start_s + onset_s(video.sound.waveform, 16_000)
    assert found_s == pytest.approx(onset, abs=0.03)
    assert bool(video.notes) == (before_sound != before_video)


@pytest.mark.parametrize(
    ("name", "codecs", "slack_s"),
    [
        ("a.mov", ("-c", "copy"), 0.005),
        ("a.mkv", ("-c", "copy"), 0.005),
        ("a.webm", OPUS, 0.01),
        ("a.flv", ("-c", "copy"), 0.005),
        ("frag.mp4", ("-c", "copy", "-movflags", "frag_keyframe+empty_moov+delay_moov"), 0.005),
        ("cts.mp4", ("-c", "copy", "-movflags", "+negative_cts_offsets"), 0.005),
    ],
)
@pytest.mark.parametrize("late_s", [(1.5, 0.7), (0.7, 1.5), (2.0, 2.0)])
def test_every_container_keeps_its_clock(
    sounding: Path,
    tmp_path: Path,
    name: str,
    codecs: tuple[str, ...],
    slack_s: float,
    late_s: tuple[float, float],
) -> None:
    path, (video_s, sound_s) = tmp_path / name, late_s
    inputs: list[str | Path] = [
        "-itsoffset",
        str(video_s),
        "-i",
        sounding,
        "-itsoffset",
        str(sound_s),
    ]
    run_ffmpeg(*inputs, "-i", sounding, "-map", "0:v", "-map", "1:a", *codecs, path)
    video = decode_video(path)
    expected = video_s + np.array(grey_index(video.frames)) / 10
    np.testing.assert_allclose(video.frame_times_s, expected, atol=2e-3)
    assert beep_s(video) == pytest.approx(1.5 + sound_s, abs=slack_s)


@pytest.mark.parametrize("how", ["-movflags frag_keyframe+empty_moov", "-use_editlist 0"])
def test_late_frames_without_an_edit_list(sounding: Path, tmp_path: Path, how: str) -> None:
    """Such files show their first frame from the start; the other frames have correct times."""
    path = tmp_path / "a.mp4"
    inputs: list[str | Path] = [
        "-itsoffset",
        "1.5",
        "-i",
        sounding,
        "-i",
        sounding,
        "-map",
        "0:v",
        "-map",
        "1:a",
    ]
    run_ffmpeg(*inputs, "-c", "copy", *how.split(), path)
    video = decode_video(path, fps=10.0)
    index = np.array(grey_index(video.frames))
    still = index == 0
    assert still.sum() > 10
    assert video.frame_times_s[0] == pytest.approx(0.2, abs=2e-3)
    # The AAC encoder's padding delays the clock of the sound, and with it that of the frames.
    late_s = beep_s(video) - 1.5
    assert late_s == pytest.approx(0.023, abs=0.005)
    expected = 1.5 + late_s + index / 10
    np.testing.assert_allclose(video.frame_times_s[~still], expected[~still], atol=0.005)
    assert (video.frame_times_s[still] < 1.5 + late_s + 0.1).all()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_of_two_video_tracks_the_first_is_read(sounding: Path, tmp_path: Path, name: str) -> None:
    codec = ["-c:v", "mjpeg"] if name == "a.avi" else ["-c:v", "libx264"]
    maps = ["-map", "0:v", "-map", "0:v", "-filter:v:1", "negate"]
    run_ffmpeg("-i", sounding, *maps, *codec, tmp_path / name)
    video = decode_video(tmp_path / name)
    np.testing.assert_allclose(video.frame_times_s, np.array(grey_index(video.frames)) / 10)
    assert video.notes == ("2 video tracks; the first is read",)


def test_pixels_that_are_not_square_are_noted(sounding: Path, tmp_path: Path) -> None:
    run_ffmpeg("-i", sounding, "-vf", "setsar=2/1", tmp_path / "a.mp4")
    video = decode_video(tmp_path / "a.mp4")
    assert (video.width, video.height) == (64, 48)
    assert video.notes == ("pixels are 2:1, not square; frames and boxes are as stored",)


def test_very_long_sound_is_refused_before_decoding(sounding: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.mp4"
    silence = ["-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "7200", "-b:a", "8k"]
    streams = ["-c:v", "copy", "-c:a", "aac", "-map", "0:v", "-map", "1:a"]
    run_ffmpeg("-i", sounding, *silence, *streams, long)
    with pytest.raises(MediaTooLarge, match=r"its sound track lasts 7,200\.\d s"):
        decode_video(long)


def test_frames_reordered_at_the_start_of_flv(sounding: Path, tmp_path: Path) -> None:
    """The first frame is shown later than it is decoded, and the sound is delayed with it."""
    run_ffmpeg("-i", sounding, "-c", "copy", tmp_path / "a.flv")
    video = decode_video(tmp_path / "a.flv")
    shift = video.frame_times_s - np.array(grey_index(video.frames)) / 10
    assert np.ptp(shift) < 2e-3
    assert beep_s(video) == pytest.approx(1.5 + shift[0], abs=0.005)


@pytest.mark.parametrize("cut_s", [0.5, 1.25, 1.75, 2.05])
@pytest.mark.parametrize("options", [{}, {"fps": 10.0}, {"video_start": 0.5, "video_end": 1.2}])
def test_clips_cut_between_keyframes(
    sounding: Path, tmp_path: Path, cut_s: float, options: dict[str, float]
) -> None:
    """Cut without encoding: the file holds frames from before the cut, which are not shown."""
    cut = tmp_path / "cut.mp4"
    run_ffmpeg("-ss", str(cut_s), "-i", sounding, "-c", "copy", cut)
    video = decode_video(cut, **options)
    assert video.start_s >= options.get("video_start", 0.0) - 1e-6
    index = np.array(grey_index(video.frames))
    np.testing.assert_allclose(video.frame_times_s, (index / 10 - cut_s).clip(0), atol=2e-3)
    assert video.duration_s == pytest.approx(4 - cut_s, abs=0.05)
    if cut_s < 1.5 and not options:
        assert beep_s(video) == pytest.approx(1.5 - cut_s, abs=0.005)


def test_damaged_sound_is_refused(tmp_path: Path) -> None:
    """decord stops at the first packet that it cannot decode, as if the sound ended there."""
    clip, noise = tmp_path / "a.mp4", np.random.default_rng(0).normal(0, 0.1, 4 * 44_100)
    data = bytearray(write_clip(clip, 40, sound=noise).read_bytes())
    assert decode_video(clip).sound is not None
    # The second of two tables holds the offsets of the sound's chunks.
    at = data.rindex(b"stco") + 8
    (n_chunks,) = struct.unpack_from(">I", data, at)
    for offset in struct.unpack_from(f">{n_chunks}I", data, at + 4)[10:30]:
        data[offset : offset + 16] = bytes(16)
    clip.write_bytes(data)
    with pytest.raises(MediaCorrupt, match=r"damaged: 0\.\d+ of 4\.000 s of its sound"):
        decode_video(clip)


@pytest.mark.parametrize("codec", [("copy",), ("mjpeg",), ("mpeg4", "-bf", "2")])
def test_frames_of_avi_are_counted(sounding: Path, tmp_path: Path, codec: tuple[str, ...]) -> None:
    """It has no times; the file of H.264 at 10 frames per second has places for 600 of them."""
    run_ffmpeg("-i", sounding, "-an", "-c:v", *codec, tmp_path / "a.avi")
    video = decode_video(tmp_path / "a.avi", fps=10.0)
    index = np.array(grey_index(video.frames))
    assert len(index) == 40
    np.testing.assert_allclose(video.frame_times_s, index / 10, atol=1e-6)
