"""Sound tracks: each sample at its own time, in every container, and only of the chosen track."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedAudio, DecodedVideo
from omnitrace_core.errors import InvalidSample, MediaCorrupt, MediaEmpty, MediaTooLarge
from omnitrace_core.media import decode_part
from omnitrace_core.media.ffmpeg.av_file import av_errors
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions
from tests.core.media_files import audio_bytes, beep, onset_s, run_ffmpeg, write_clip

DEFAULTS = MediaOptions()
RATE = 44_100


def decode(path: Path, run: MediaOptions = DEFAULTS, **options: float) -> DecodedAudio:
    part = Part("audio", uri=str(path), options=PartOptions(**options))  # type: ignore[arg-type]
    decoded = decode_part(part, run, MediaRules())
    assert isinstance(decoded, DecodedAudio)
    return decoded


def decode_video(path: Path, run: MediaOptions = DEFAULTS, **options: float) -> DecodedVideo:
    part = Part("video", uri=str(path), options=PartOptions(**options))  # type: ignore[arg-type]
    decoded = decode_part(part, run, MediaRules())
    assert isinstance(decoded, DecodedVideo)
    return decoded


def tone(seconds: float, hertz: float = 440, rate: int = RATE) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def write_wav(path: Path, waveform: np.ndarray, rate: int = RATE) -> Path:
    path.write_bytes(audio_bytes(waveform, rate))
    return path


def pitch(waveform: np.ndarray) -> float:
    """The strongest frequency of a waveform at 16 kHz."""
    return float(np.abs(np.fft.rfft(waveform)).argmax() * 16_000 / len(waveform))


# How late a sound is whose container does not say what the encoder put before it.
UNTOLD = {"aac": 1024, "libmp3lame": 1105, "ac3": 256, "mp2": 481}


@pytest.mark.parametrize(
    ("name", "codec", "is_told"),
    [
        ("a.m4a", "aac", True),
        ("a.mov", "aac", True),
        ("a.mkv", "aac", True),
        ("a.flv", "aac", False),
        ("a.avi", "aac", False),
        ("a.mp4", "libopus", True),
        ("a.webm", "libopus", True),
        ("a.mkv", "libvorbis", True),
        ("a.mp4", "libmp3lame", True),
        ("a.mkv", "libmp3lame", True),
        ("a.avi", "libmp3lame", False),
        ("a.mp3", "libmp3lame", True),
        ("a.mp4", "ac3", True),
        ("a.mkv", "ac3", True),
        ("a.avi", "ac3", False),
        ("a.mp4", "flac", True),
        ("a.mkv", "pcm_s16le", True),
        ("a.mov", "pcm_s24be", True),
        ("a.avi", "pcm_u8", True),
        ("a.ts", "aac", False),
        ("a.ts", "ac3", False),
        ("a.ts", "mp2", False),
    ],
)
@pytest.mark.parametrize("n_channels", [1, 2, 6])
def test_the_beep_is_where_it_was(
    tmp_path: Path, name: str, codec: str, is_told: bool, n_channels: int
) -> None:
    rate = 48_000 if codec == "libopus" else RATE
    if n_channels == 6 and (codec in ("libmp3lame", "mp2") or name == "a.flv"):
        n_channels = 2  # they have no more
    wave = np.repeat(beep(2, [0.5, 1.5], rate)[:, None], n_channels, axis=1)
    wav = write_wav(tmp_path / "a.wav", wave, rate)
    run_ffmpeg("-i", wav, "-c:a", codec, "-b:a", f"{64 * n_channels}k", tmp_path / name)
    decoded = decode(tmp_path / name)
    late_s = 0 if is_told else UNTOLD[codec] / rate
    slack_s = 0.0015 if codec == "ac3" else 0.0005
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(0.5 + late_s, abs=slack_s)
    assert onset_s(decoded.waveform[16_000:], 16_000) == pytest.approx(0.5 + late_s, abs=slack_s)
    if is_told:
        assert decoded.duration_s == pytest.approx(2.0, abs=1e-3)
        assert decoded.notes == ()
    elif name != "a.ts":
        assert 2.0 <= decoded.duration_s < 2.05


@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
def test_samples_equal_the_source(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (3 * RATE, 2)).astype(np.float32)
    wav = write_wav(tmp_path / "a.wav", noise)
    run_ffmpeg("-i", wav, "-c:a", "pcm_f32le", tmp_path / name)
    np.testing.assert_allclose(
        decode(tmp_path / name).waveform, decode(wav).waveform, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_in_blocks_equals_that_of_all_samples(rate: int) -> None:
    import librosa

    noise = np.random.default_rng(1).normal(0, 0.1, rate * 3 + 17).astype(np.float32)
    part = Part("audio", data=audio_bytes(noise, rate))
    decoded = decode_part(part, DEFAULTS, MediaRules())
    assert isinstance(decoded, DecodedAudio)
    whole = librosa.resample(noise, orig_sr=rate, target_sr=16_000, res_type="soxr_hq")
    np.testing.assert_allclose(decoded.waveform, whole[: len(decoded.waveform)], atol=1e-6, rtol=0)


def with_gap(tmp_path: Path, name: str, shift_s: float) -> Path:
    """Two beeps a second apart; all packets from 1 s on are shifted by `shift_s`."""
    wav = write_wav(tmp_path / "a.wav", beep(2, [0.5, 1.5], 48_000), 48_000)
    # 50 packets of 20 ms before the shift.
    shifted = f"setts=pts='PTS+gte(N,50)*{shift_s}/TB':dts='DTS+gte(N,50)*{shift_s}/TB'"
    run_ffmpeg("-i", wav, "-c:a", "pcm_s16le", tmp_path / "cut.mkv")
    run_ffmpeg("-i", wav, "-c:a", "libopus", "-bsf:a", shifted, tmp_path / name)
    return tmp_path / name


def test_a_gap_is_silence(tmp_path: Path) -> None:
    decoded = decode(with_gap(tmp_path, "a.mkv", 0.75))
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(0.5, abs=0.001)
    assert onset_s(decoded.waveform[16_000:], 16_000) == pytest.approx(1.25, abs=0.002)
    assert np.abs(decoded.waveform[17_000:27_000]).max() == 0
    assert decoded.duration_s == pytest.approx(2.75, abs=0.01)
    (note,) = decoded.notes
    assert "gaps of 0.75 s in all, the first at 0.99 s; they are silence" in note


def test_a_gap_longer_than_the_limit_is_not_filled(tmp_path: Path) -> None:
    path = with_gap(tmp_path, "a.mkv", 90_000)
    with pytest.raises(MediaTooLarge, match=r"90,002\.\d s, above media\.max_audio_s=3,600"):
        decode(path)


def write_tracks(tmp_path: Path, name: str, default: int | None = None) -> Path:
    """A clip of 20 frames with three sound tracks: of 400, 800 and 1200 Hz."""
    clip = write_clip(tmp_path / "clip.mp4", 20)
    inputs: list[str | Path] = ["-i", clip]
    maps = ["-map", "0:v"]
    for k in range(3):
        inputs += ["-i", write_wav(tmp_path / f"{k}.wav", tone(2, 400 * (k + 1)))]
        maps += ["-map", f"{k + 1}:a"]
    marks = [f"-disposition:a:{k}" for k in range(3)]
    flags = [x for k in range(3) for x in (marks[k], "default" if k == default else "0")]
    run_ffmpeg(*inputs, *maps, "-c:v", "copy", "-c:a", "aac", *flags, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(("name", "default"), [("a.mkv", 1), ("a.mp4", 2), ("a.mov", None)])
def test_the_default_track_is_heard_unless_another_is_asked_for(
    tmp_path: Path, name: str, default: int | None
) -> None:
    path = write_tracks(tmp_path, name, default)
    heard = default or 0
    decoded, video = decode(path), decode_video(path)
    assert video.sound is not None
    for waveform, notes in (
        (decoded.waveform, decoded.notes),
        (video.sound.waveform, video.notes),
    ):
        assert pitch(waveform) == pytest.approx(400 * (heard + 1), abs=2)
        assert f"sound track {heard} of 3 is used (they count from 0)" in notes
    for number in range(3):
        assert pitch(decode(path, audio_track=number).waveform) == pytest.approx(
            400 * (number + 1), abs=2
        )
        sound = decode_video(path, audio_track=number).sound
        assert sound is not None
        assert pitch(sound.waveform) == pytest.approx(400 * (number + 1), abs=2)
    for read in (decode, decode_video):
        with pytest.raises(InvalidSample, match="audio_track=3, but the file has 3 sound tracks"):
            read(path, audio_track=3)


def test_tracks_of_files_with_one_or_none(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", tone(1))
    run_ffmpeg("-i", wav, tmp_path / "a.mp3")
    for path in (wav, tmp_path / "a.mp3"):
        assert decode(path, audio_track=0).duration_s == 1.0
        with pytest.raises(InvalidSample, match="audio_track=1, but the file has 1 sound tracks"):
            decode(path, audio_track=1)
    silent = write_clip(tmp_path / "silent.mp4", 10)
    with pytest.raises(InvalidSample, match="audio_track=0, but the file has 0 sound tracks"):
        decode_video(silent, audio_track=0)
    with pytest.raises(MediaEmpty, match="no sound track"):
        decode(silent)
    with pytest.raises(InvalidSample, match="option audio_track is -1; give a number of 0 or more"):
        decode(wav, audio_track=-1)


NOISE = np.random.default_rng(2).normal(0, 0.1, (4 * RATE, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("channels", "note"),
    [
        (np.stack([tone(4), -tone(4)], 1), "in 4.0 of 4.0 s: mixed to one channel, that sound is"),
        (np.stack([tone(4), -0.9 * tone(4)], 1), "in 4.0 of 4.0 s"),
        (np.stack([tone(4), np.r_[tone(2), -tone(2)]], 1), "in 2.0 of 4.0 s"),
        (np.stack([tone(4), 0 * tone(4)], 1), ""),
        (np.stack([tone(4), 0.5 * tone(4, 700)], 1), ""),
        (NOISE, ""),
        (NOISE * (0, 0, 1, 0, 0, 0), ""),
        (1e-5 * np.stack([tone(4), -tone(4)], 1), ""),
        (tone(4)[:, None], ""),
    ],
)
def test_channels_that_cancel_each_other_are_noted(
    tmp_path: Path, channels: np.ndarray, note: str
) -> None:
    wav = write_wav(tmp_path / "a.wav", channels.astype(np.float32))
    run_ffmpeg("-i", wav, "-c:a", "pcm_f32le", tmp_path / "a.mkv")
    for path in (wav, tmp_path / "a.mkv"):
        notes = [text for text in decode(path).notes if "opposite phase" in text]
        assert len(notes) == bool(note)
        assert note in "".join(notes)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a", "a.flac", "a.mkv"])
def test_max_heard_s_shortens_what_is_heard_and_says_so(tmp_path: Path, name: str) -> None:
    wav = write_wav(tmp_path / "source.wav", beep(4, [0.5, 2.5], RATE))
    run_ffmpeg("-i", wav, tmp_path / name)
    heard = decode(tmp_path / name, MediaOptions(max_heard_s=1.5))
    assert len(heard.waveform) == 24_000
    assert heard.duration_s == pytest.approx(4.0, abs=1e-3)
    assert heard.notes == ("heard 1.5 of 4.0 s of sound, as media.max_heard_s says",)
    whole = decode(tmp_path / name, MediaOptions(max_heard_s=4.1))
    assert (len(whole.waveform), whole.notes) == (64_000, ())
    np.testing.assert_allclose(heard.waveform[:23_000], whole.waveform[:23_000], atol=1e-6)
    late = decode(tmp_path / name, MediaOptions(max_heard_s=1.0), audio_start=2.0, audio_end=3.5)
    assert (late.start_s, len(late.waveform)) == (2.0, 16_000)
    assert late.notes == ("heard 1.0 of 1.5 s of sound, as media.max_heard_s says",)
    assert onset_s(late.waveform, 16_000) == pytest.approx(0.5, abs=0.005)


def test_max_heard_s_of_the_sound_of_a_video(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 40, sound=beep(4, [0.5, 2.5], RATE))
    options: list[Mapping[str, float]] = [{}, {"video_start": 1.0, "video_end": 3.0}]
    for chosen, n_all in zip(options, ("4.0", "2.0"), strict=True):
        video = decode_video(clip, MediaOptions(max_heard_s=1.5), **chosen)
        assert video.sound is not None
        assert len(video.sound.waveform) == 24_000
        assert video.sound.start_s == pytest.approx(chosen.get("video_start", 0.0))
        assert video.duration_s == 4.0
        assert f"heard 1.5 of {n_all} s of sound, as media.max_heard_s says" in video.notes


def test_a_sound_that_is_too_long_without_a_header_that_says_so(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", tone(6))
    for name in ("a.aac", "a.flv"):
        run_ffmpeg("-i", wav, "-c:a", "aac", tmp_path / name)
        with pytest.raises(MediaTooLarge, match=r"6\.0 s, above media\.max_audio_s=2\.0"):
            decode(tmp_path / name, MediaOptions(max_audio_s=2.0))


def test_a_rate_that_changes_is_refused(tmp_path: Path) -> None:
    parts = []
    for rate in (44_100, 32_000):
        wav = write_wav(tmp_path / "a.wav", tone(1, rate=rate), rate)
        run_ffmpeg("-i", wav, tmp_path / "a.aac")
        parts.append((tmp_path / "a.aac").read_bytes())
    (tmp_path / "two.aac").write_bytes(b"".join(parts))
    with pytest.raises(MediaCorrupt, match="changes from 44,100 to 32,000 samples per second"):
        decode(tmp_path / "two.aac")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv", "a.ts"])
@pytest.mark.parametrize(("video_s", "sound_s"), [(0.0, 0.0), (1.5, 0.7), (0.7, 1.5)])
def test_sound_stays_with_the_frames(
    tmp_path: Path, name: str, video_s: float, sound_s: float
) -> None:
    """The first frame and the beep are as far apart as they were put, in every container."""
    clip = write_clip(tmp_path / "clip.mov", 40, output=["-bf", "0"])
    wav = write_wav(tmp_path / "a.wav", beep(4, [2.5], RATE))
    late: list[str | Path] = ["-itsoffset", str(video_s), "-i", clip]
    late += ["-itsoffset", str(sound_s), "-i", wav, "-c:v", "copy", "-c:a", "aac"]
    run_ffmpeg(*late, tmp_path / name)
    video = decode_video(tmp_path / name)
    assert video.sound is not None
    beep_s = video.sound.start_s + onset_s(video.sound.waveform, 16_000)
    assert beep_s - video.frame_times_s[0] == pytest.approx(2.5 + sound_s - video_s, abs=0.003)


def test_he_aac_has_twice_the_rate_of_its_core(tmp_path: Path) -> None:
    """AAC that says it is HE-AAC; what would be its upper half is empty."""
    wav = write_wav(tmp_path / "a.wav", beep(2, [0.5, 1.5], 22_050), 22_050)
    run_ffmpeg("-i", wav, "-c:a", "aac", tmp_path / "lc.m4a")
    core, extended = bytes.fromhex("138856e500"), bytes.fromhex("2b8a080000")
    data = (tmp_path / "lc.m4a").read_bytes()
    assert data.count(core) == 1
    (tmp_path / "he.m4a").write_bytes(data.replace(core, extended))
    # Wrapped in other containers, the core's rate is told, and frames come at twice that.
    for name in ("he.m4a", "he.mkv", "he.flv", "he.ts"):
        if name != "he.m4a":
            run_ffmpeg("-i", tmp_path / "he.m4a", "-c", "copy", tmp_path / name)
        decoded = decode(tmp_path / name)
        assert decoded.duration_s == pytest.approx(2.0, abs=0.1)
        first_s = onset_s(decoded.waveform, 16_000)
        assert first_s == pytest.approx(0.5, abs=0.07)
        assert onset_s(decoded.waveform[16_000:], 16_000) == pytest.approx(first_s, abs=0.001)
        assert not [note for note in decoded.notes if "gap" in note or "overlap" in note]


def test_tags_that_are_not_utf8_are_no_matter(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", beep(1, [0.5], RATE))
    for name in ("a.m4a", "a.mkv", "a.flv", "a.ts"):
        tags = ("-metadata", "title=Lied-QQQQ", "-metadata", "service_name=Lied-QQQQ")
        run_ffmpeg("-i", wav, "-c:a", "aac", *tags, tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert b"Lied-QQQQ" in data
        # Characters of ISO 8859-1. In MPEG-TS a table no longer fits its checksum.
        (tmp_path / name).write_bytes(data.replace(b"Lied-QQQQ", b"Lied-\xe4\xfc\xf6\xdf"))
        assert onset_s(decode(tmp_path / name).waveform, 16_000) == pytest.approx(0.5, abs=0.025)


def test_a_place_before_the_beginning_of_a_file_is_damage(tmp_path: Path) -> None:
    """Some damaged indexes of fragments make FFmpeg seek there."""
    wav = write_wav(tmp_path / "a.wav", beep(1, [0.5], RATE))
    named = "a place outside of it is named"
    with pytest.raises(MediaCorrupt, match=named), av_errors("a.mp4"), wav.open("rb") as file:
        file.seek(-1)


def test_what_an_edit_list_leaves_out_is_not_heard(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "a.wav", beep(4, [0.5, 1.5, 3.0], RATE))
    run_ffmpeg("-i", wav, "-c:a", "aac", tmp_path / "a.m4a")
    data = bytearray((tmp_path / "a.m4a").read_bytes())
    at = data.index(b"elst") + 12  # duration of the first edit
    assert data[at : at + 4] == (4 * RATE).to_bytes(4, "big")
    data[at : at + 4] = (RATE * 5 // 4).to_bytes(4, "big")
    (tmp_path / "a.m4a").write_bytes(data)
    # Nor does it count against the limit.
    decoded = decode(tmp_path / "a.m4a", MediaOptions(max_audio_s=2.0))
    assert (decoded.duration_s, len(decoded.waveform)) == (1.25, 20_000)
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(0.5, abs=0.001)
