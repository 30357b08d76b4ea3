"""Decoded audio: its samples and times, and the errors of bad files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import InvalidSample, MediaCorrupt, MediaEmpty, MediaError, MediaTooLarge
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions
from tests.core.media_files import audio_bytes, beep, image_bytes, onset_s

RULES = MediaRules()
DEFAULTS = MediaOptions()
RED = Image.new("RGB", (112, 84), (200, 30, 40))


def decode_audio(data: bytes, run: MediaOptions = DEFAULTS, **options: Any) -> DecodedAudio:
    part = Part("audio", data=data, options=PartOptions(**options))
    decoded = decode_part(part, run, RULES)
    assert isinstance(decoded, DecodedAudio)
    return decoded


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_audio_is_decoded_to_mono_at_the_models_rate(form: str, rate: int) -> None:
    left = beep(2, [0.5], rate)
    data = audio_bytes(np.stack([left, np.zeros_like(left)], axis=1), rate, form)
    decoded = decode_audio(data)
    assert decoded.waveform.dtype == np.float32
    assert decoded.waveform.shape == (32_000,)
    assert (decoded.sample_rate, decoded.start_s, decoded.duration_s) == (16_000, 0.0, 2.0)
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(0.5, abs=0.005)
    # The mean of the two channels: half of the tone's 0.5.
    assert np.abs(decoded.waveform).max() == pytest.approx(0.25, abs=0.03)
    assert decoded.sha256 == hashlib.sha256(data).hexdigest()


def test_the_waveform_is_never_longer_than_the_file() -> None:
    for n in range(44_000, 44_020):
        decoded = decode_audio(audio_bytes(np.zeros(n, np.float32), 44_100))
        assert len(decoded.waveform) / 16_000 <= decoded.duration_s


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_cut_keeps_the_files_clock(form: str) -> None:
    data = audio_bytes(beep(4, [0.2, 2.5], 44_100), 44_100, form)
    decoded = decode_audio(data, audio_start=2.0, audio_end=3.0)
    assert (decoded.start_s, decoded.duration_s) == (2.0, 4.0)
    assert len(decoded.waveform) == 16_000
    assert onset_s(decoded.waveform, 16_000) == pytest.approx(0.5, abs=0.005)
    assert len(decode_audio(data, audio_start=3.5, audio_end=99.0).waveform) == 8_000
    with pytest.raises(MediaEmpty, match=r"lasts 4\.000 s, so nothing is left after 4\.5 s"):
        decode_audio(data, audio_start=4.5)
    with pytest.raises(InvalidSample, match=r"audio_start=2\.0 and audio_end=1\.0"):
        decode_audio(data, audio_start=2.0, audio_end=1.0)
    with pytest.raises(InvalidSample, match="option audio_start is -1"):
        decode_audio(data, audio_start=-1.0)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_errors(
    form: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 100_000).astype(np.float32)
    data = audio_bytes(noise, 44_100, form)
    decode_audio(data)
    with pytest.raises(MediaCorrupt, match=r"inline audio: (truncated|cannot be read)"):
        decode_audio(data[: int(len(data) * share)])


def test_a_wav_written_to_a_pipe_may_lack_its_length(tmp_path: Path) -> None:
    data = bytearray(audio_bytes(beep(1, [0.5]), 16_000))
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    assert decode_audio(bytes(data)).duration_s == 1.0


@pytest.mark.parametrize("bad", [(np.nan, 0), (np.inf, 0), (np.inf, -np.inf)])
def test_samples_that_are_not_finite(bad: tuple[float, float]) -> None:
    waveform = np.stack([beep(1, [0.5])] * 2, axis=1)
    waveform[700] = bad
    with pytest.raises(MediaCorrupt, match="not finite"):
        decode_audio(audio_bytes(waveform, 16_000))


def test_above_full_scale_is_clipped_and_noted() -> None:
    decoded = decode_audio(audio_bytes(beep(1, [0.5]) * 3, 16_000))
    assert np.abs(decoded.waveform).max() == 1.0
    assert decoded.notes == ("audio above full scale clipped",)


def test_the_duration_limit_is_checked_before_decoding() -> None:
    data = bytearray(audio_bytes(beep(3, [0.5]), 16_000, "FLAC"))
    with pytest.raises(MediaTooLarge, match=r"3\.0 s, above media\.max_audio_s=2\.0"):
        decode_audio(bytes(data), MediaOptions(max_audio_s=2.0))
    # The 36 bits of STREAMINFO that declare the number of samples: 49 days.
    data[21] |= 0x0F
    data[22:26] = b"\xff\xff\xff\xff"
    with pytest.raises(MediaCorrupt, match=r"its header is wrong: it declares 68,719,476,735 "):
        decode_audio(bytes(data))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (audio_bytes(np.zeros(0, np.float32), 16_000), MediaEmpty, "no audio samples"),
        (b"\0\1\2\3" * 999, MediaCorrupt, "unknown format: no audio format that we read; use WAV"),
        (image_bytes(RED), MediaCorrupt, "the bytes are PNG, not audio"),
        (b"RIFF\x24\0\0\0WAVEfmt ", MediaCorrupt, "its header declares 12 of 16 bytes"),
    ],
)
def test_bytes_that_are_not_audio(data: bytes, error: type[MediaError], message: str) -> None:
    with pytest.raises(error, match=message):
        decode_audio(data)


def test_a_real_recording(shared_data: Path) -> None:
    wav = next((shared_data / "media").glob("*.wav"))
    audio = decode_audio(wav.read_bytes())
    assert audio.duration_s == pytest.approx(2.252, abs=1e-3)
    assert len(audio.waveform) == pytest.approx(audio.duration_s * 16_000, abs=1)
