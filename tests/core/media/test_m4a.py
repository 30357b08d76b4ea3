"""Audio parts whose file is a container (M4A and others): FFmpeg decodes the sound track."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import MediaCorrupt, MediaEmpty, MediaError, MediaTooLarge
from omnitrace_core.media import decode_part
from omnitrace_core.media.sound import track as track_module
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions
from tests.core.media_files import audio_bytes, beep, onset_s, run_ffmpeg, write_clip

DEFAULTS = MediaOptions()
# The longest AAC frame in samples: encoders add up to one before and after.
FRAME = 1024


def decode(path: Path, run: MediaOptions = DEFAULTS, **options: float) -> DecodedAudio:
    part = Part("audio", uri=str(path), options=PartOptions(**options))  # type: ignore[arg-type]
    decoded = decode_part(part, run, MediaRules())
    assert isinstance(decoded, DecodedAudio)
    return decoded


def write_m4a(path: Path, rate: int = 44_100, *output: str, n_channels: int = 1) -> Path:
    """Two seconds with a beep at 0.5 and 1.5 s, AAC unless `output` sets another codec."""
    sound = np.repeat(beep(2, [0.5, 1.5], rate)[:, None], n_channels, axis=1)
    wav = path.with_suffix(".wav")
    wav.write_bytes(audio_bytes(sound, rate))
    run_ffmpeg("-i", wav, *(output or ("-c:a", "aac")), path)
    return path


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_aac_is_complete_and_on_time(tmp_path: Path, rate: int, n_channels: int) -> None:
    decoded = decode(write_m4a(tmp_path / "a.m4a", rate, n_channels=n_channels))
    assert (decoded.sample_rate, decoded.start_s, decoded.duration_s) == (16_000, 0.0, 2.0)
    assert decoded.waveform.shape == (32_000,)
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(0.5, abs=0.002)
    assert onset_s(decoded.waveform[16_000:], 16_000) == pytest.approx(0.5, abs=0.002)
    assert np.abs(decoded.waveform).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("a.m4b", ()),
        ("a.mov", ()),
        ("fast.m4a", ("-c:a", "aac", "-movflags", "+faststart")),
        ("alac.m4a", ("-c:a", "alac")),
        ("pcm.mov", ("-c:a", "pcm_s16le")),
        ("mp3.mp4", ("-c:a", "libmp3lame")),
        ("a.webm", ("-c:a", "libopus")),
        ("live.webm", ("-c:a", "libopus", "-live", "1")),
        ("vorbis.mka", ("-c:a", "libvorbis")),
        # These do not declare that the first frame is the encoder's padding.
        ("a.aac", ()),
        ("bare.m4a", ("-c:a", "aac", "-use_editlist", "0")),
        ("fragments.m4a", ("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov")),
        ("a.mka", ()),
    ],
)
def test_other_containers_and_codecs(tmp_path: Path, name: str, output: tuple[str, ...]) -> None:
    path = write_m4a(tmp_path / name, 44_100, *output)
    decoded = decode(path)
    assert decoded.duration_s == pytest.approx(2.0, abs=2 * FRAME / 44_100)
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(0.5, abs=1.1 * FRAME / 44_100)
    with pytest.raises(MediaTooLarge, match=r"above media\.max_audio_s=1\.5"):
        decode(path, MediaOptions(max_audio_s=1.5))


@pytest.mark.parametrize("name", ["a.m4a", "fragments.m4a", "a.mka"])
def test_the_limit_is_checked_before_decoding(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = ("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov") if "frag" in name else ()
    path = write_m4a(tmp_path / name, 44_100, *output)
    monkeypatch.setattr(track_module, "_TrackReader", None)
    with pytest.raises(MediaTooLarge, match=r"2\.\d s, above media\.max_audio_s=1\.0"):
        decode(path, MediaOptions(max_audio_s=1.0))


def test_a_late_track_begins_late(tmp_path: Path) -> None:
    late, cut = tmp_path / "late.m4a", tmp_path / "cut.m4a"
    whole = write_m4a(tmp_path / "a.m4a")
    run_ffmpeg("-itsoffset", "0.7", "-i", whole, "-c", "copy", late)
    decoded = decode(late)
    assert decoded.duration_s == pytest.approx(2.7, abs=0.03)
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(1.2, abs=0.002)
    run_ffmpeg("-ss", "1.2", "-i", whole, "-c", "copy", cut)
    decoded = decode(cut)
    assert decoded.duration_s == pytest.approx(0.8, abs=0.03)
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(0.3, abs=0.002)


def test_cut_keeps_the_files_clock(tmp_path: Path) -> None:
    path = write_m4a(tmp_path / "a.m4a")
    decoded = decode(path, audio_start=1.0, audio_end=1.75)
    assert (decoded.start_s, decoded.duration_s) == (1.0, 2.0)
    assert len(decoded.waveform) == 12_000
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(0.5, abs=0.002)
    with pytest.raises(MediaEmpty, match=r"lasts 2\.000 s"):
        decode(path, audio_start=3.0)


def test_the_sound_of_a_video_as_audio(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 20, sound=beep(2, [1.5], 44_100))
    decoded = decode(clip)
    assert decoded.duration_s == pytest.approx(2.0, abs=1e-6)
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(1.5, abs=0.002)
    silent = write_clip(tmp_path / "silent.mp4", 20)
    matroska = tmp_path / "silent.mkv"
    run_ffmpeg("-i", silent, "-c", "copy", matroska)
    for path in (silent, matroska):
        with pytest.raises(MediaEmpty, match="no sound track"):
            decode(path)


@pytest.mark.parametrize("name", ["a.m4a", "fast.m4a", "fragments.m4a", "a.aac", "a.mka"])
@pytest.mark.parametrize("share", [0.3, 0.97])
def test_truncated_files_are_errors(tmp_path: Path, name: str, share: float) -> None:
    flags = {"fast.m4a": "+faststart", "fragments.m4a": "frag_keyframe+empty_moov"}.get(name)
    output = ("-c:a", "aac", "-movflags", flags) if flags else ("-c:a", "aac")
    path = write_m4a(tmp_path / name, 44_100, *output)
    data = path.read_bytes()
    decode(path)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaCorrupt, match=rf"{name}: (truncated|.*cannot be decoded)"):
        decode(path)


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    path = write_m4a(tmp_path / "a.m4a")
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 4
    size = int.from_bytes(data[at - 8 : at - 4], "big") - 8
    data[at + size // 4 : at + size] = bytes(size - size // 4)
    path.write_bytes(data)
    with pytest.raises(MediaCorrupt, match=r"a\.m4a: (damaged: .* of 2\.000 s|its sound track)"):
        decode(path)


def test_files_without_a_readable_sound_track(tmp_path: Path) -> None:
    for name, data in (
        ("a.m4a", b"\0\0\0\x18ftypM4A " + bytes(99)),
        ("a.aac", b"\xff\xf1" + bytes(99)),
        ("a.webm", b"\x1a\x45\xdf\xa3" + bytes(99)),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError, match=rf"{name}: "):
            decode(tmp_path / name)
