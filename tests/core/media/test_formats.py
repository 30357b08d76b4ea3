"""Only listed formats are read, and each file must be complete: no playlists, no false headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedAudio, DecodedVideo
from omnitrace_core.errors import MediaCorrupt, MediaEmpty, MediaError
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Modality, Part, PartOptions
from tests.core.media.false_headers import (
    converted,
    flac_declaring,
    mp3_declaring,
    noise,
    playlist_as_avi,
    put,
    wav_declaring_a_tenth,
)
from tests.core.media_files import audio_bytes, beep, onset_s, run_ffmpeg, write_clip

OPTIONS, RULES = MediaOptions(), MediaRules()
BARE_MP3 = ("-write_xing", "0", "-id3v2_version", "0")


def decode_audio(data: bytes, **options: float) -> DecodedAudio:
    part = Part("audio", data=data, options=PartOptions(**options))  # type: ignore[arg-type]
    decoded = decode_part(part, OPTIONS, RULES)
    assert isinstance(decoded, DecodedAudio)
    return decoded


def decode_video(data: bytes) -> DecodedVideo:
    decoded = decode_part(Part("video", data=data), OPTIONS, RULES)
    assert isinstance(decoded, DecodedVideo)
    return decoded


def refusal(kind: Modality, data: bytes) -> str:
    """The message of the error that the bytes raise."""
    with pytest.raises(MediaError) as caught:
        decode_part(Part(kind, data=data), OPTIONS, RULES)
    assert caught.value.code == "media_corrupt"
    return str(caught.value)


def test_a_playlist_that_looks_like_avi_is_not_followed(tmp_path: Path) -> None:
    """FFmpeg would read it as a playlist and show a file outside media.roots."""
    outside, inside = tmp_path / "private.ts", tmp_path / "inside"
    inside.mkdir()
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=64x48:d=9", "-c:v", "libx264", outside)
    data = playlist_as_avi(str(outside))
    (inside / "a.avi").write_bytes(data)
    options = MediaOptions(roots=(str(inside),))
    for part in (Part("video", uri=str(inside / "a.avi")), Part("video", data=data)):
        with pytest.raises(MediaCorrupt, match="a playlist: no video format that we read"):
            decode_part(part, options, RULES)


@pytest.mark.parametrize("tag", [b"AVI ", b"WAVE", b"ftyp", b"moov", b"\x1aE\xdf\xa3", b"FLV\1"])
@pytest.mark.parametrize("text", [b"#EXTM3U\n", b"ffconcat version 1.0\n", b"v=0\nc=IN IP4 1.1\n"])
@pytest.mark.parametrize("at", [4, 8])
def test_text_that_contains_a_tag_is_refused(tag: bytes, text: bytes, at: int) -> None:
    for kind in ("video", "audio"):
        assert "format that we read" in refusal(kind, put(text.ljust(64), at, tag))


@pytest.mark.parametrize("form", ["AU", "W64", "VOC", "SVX", "NIST", "IRCAM", "MAT4", "PAF"])
def test_formats_whose_completeness_cannot_be_checked_are_refused(form: str) -> None:
    message = refusal("audio", audio_bytes(beep(1, [0]), 16_000, form))
    assert "no audio format that we read; use WAV" in message


@pytest.mark.parametrize("form", ["AIFF", "RF64", "CAF", "WAVEX"])
def test_truncated_audio_is_refused(form: str) -> None:
    data = audio_bytes(noise(1.0), 44_100, form)
    assert decode_audio(data).duration_s == 1.0
    for share in (0.1, 0.5, 0.99):
        assert "truncated" in refusal("audio", data[: int(len(data) * share)])


def test_headers_that_declare_less_than_the_content_are_refused() -> None:
    tone = beep(8, [0.5], 16_000)
    wav, flac, ogg, mp3 = (
        audio_bytes(tone, 16_000, form) for form in ("WAV", "FLAC", "OGG", "MP3")
    )
    assert "its header declares" in refusal("audio", wav_declaring_a_tenth(wav))
    assert "it declares 16,000 samples" in refusal("audio", flac_declaring(flac, 16_000))
    assert "it declares 10 frames" in refusal("audio", mp3_declaring(mp3, 10))
    assert "2 streams" in refusal("audio", ogg + ogg)
    last = ogg.rindex(b"OggS")
    assert "not marked as the last" in refusal("audio", ogg[:last])
    assert "does not fit its checksum" in refusal("audio", put(ogg, last + 5, b"\0"))


@pytest.mark.parametrize("blocks", [("-frame_size", "1152"), ("-frame_size", "4608"), ()])
@pytest.mark.parametrize("seconds", [0.01, 1.0, 3.7])
def test_flac_files_of_any_block_size_are_read(blocks: tuple[str, ...], seconds: float) -> None:
    wav = audio_bytes(noise(seconds), 44_100)
    flac = converted(wav, "a.wav", "a.flac", *blocks)
    assert decode_audio(flac).duration_s == pytest.approx(seconds, abs=1e-4)
    message = refusal("audio", flac[: -len(flac) // 10])
    assert "truncated" in message or "cannot be read as audio" in message


def test_a_wav_of_unknown_length_is_noted() -> None:
    wav = audio_bytes(beep(1, [0.5]), 16_000)
    piped = put(wav, wav.index(b"data") + 4, b"\xff\xff\xff\xff")
    assert "nobody knows whether the file was cut" in decode_audio(piped).notes[0]


@pytest.mark.parametrize("codec", [("-q:a", "4"), ("-b:a", "64k"), ("-ar", "22050", "-b:a", "32k")])
@pytest.mark.parametrize("tag_bytes", [0, 200_000])
def test_mp3_without_a_header_is_decoded_completely(codec: tuple[str, ...], tag_bytes: int) -> None:
    """Silence, then noise: an estimate of the length from the first frames would be wrong."""
    sound = np.concatenate([beep(6, [5.0], 44_100), noise(6.0)])
    mp3 = converted(audio_bytes(sound, 44_100), "a.wav", "a.mp3", *codec, *BARE_MP3)
    size = bytes(tag_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3\x03\0\0" + size + bytes(tag_bytes) if tag_bytes else b""
    decoded = decode_audio(tag + mp3)
    assert decoded.duration_s == pytest.approx(12.0, abs=0.1)
    late = decode_audio(tag + mp3, audio_start=4.0, audio_end=5.5)
    assert onset_s(late.waveform, 16_000) == pytest.approx(1.0, abs=0.1)
    assert "truncated" in refusal("audio", tag + mp3[:-100])
    assert "no frame at byte" in refusal("audio", tag + put(mp3, len(mp3) // 2, bytes(3000)))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.97])
def test_truncated_flv_is_refused(share: float, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 40).read_bytes()
    flv = converted(clip, "a.mp4", "a.flv", "-c", "copy")
    assert len(decode_video(flv).frames)
    assert "truncated" in refusal("video", flv[: int(len(flv) * share)])


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.mpg", "use MP4"), ("a.ogv", "the bytes are OGG, not video")],
)
def test_video_formats_without_readable_times_are_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "a.mp4", 10).read_bytes()
    codec = {"a.mpg": ("-r", "25")}.get(name, ())
    content = converted(clip, "a.mp4", name, *codec)
    assert message in refusal("video", content)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.ogg", "libvorbis"), ("a.opus", "libopus"), ("a.mkv", "libopus"), ("b.mkv", "ac3")],
)
def test_damage_does_not_end_a_sound_early(name: str, codec: str) -> None:
    """Readers look for the next page or block, or stop there without a word."""
    data = converted(audio_bytes(noise(4.0), 44_100), "a.wav", name, "-c:a", codec)
    whole = decode_audio(data)
    for seed in range(12):
        random = np.random.default_rng(seed)
        n = (1, 16, 400, 3000)[seed % 4]
        at = int(random.integers(len(data) // 10, len(data) - n))
        try:
            decoded = decode_audio(put(data, at, random.bytes(n)))
        except MediaCorrupt:
            continue
        # Bytes of a block of Opus or AC-3 in Matroska have no checksum.
        assert name.endswith(".mkv")
        assert len(decoded.waveform) == len(whole.waveform) or decoded.notes


def test_damaged_headers(tmp_path: Path) -> None:
    huge = b"\x1aE\xdf\xa3\x01\x7f" + b"\xff" * 6 + bytes(64)
    assert "no video format that we read" in refusal("video", huge)
    clip = write_clip(tmp_path / "a.mp4", 10)
    run_ffmpeg("-i", clip, "-c:v", "libvpx", "-live", "1", tmp_path / "a.webm")
    webm = (tmp_path / "a.webm").read_bytes()
    with pytest.raises((MediaCorrupt, MediaEmpty), match=r"inline video: \S"):
        decode_video(webm[: webm.index(b"\x1f\x43\xb6\x75")])
    # Blocks of a track that the header does not describe.
    run_ffmpeg("-i", clip, "-c:v", "libvpx", tmp_path / "whole.webm")
    whole = (tmp_path / "whole.webm").read_bytes()
    with pytest.raises(MediaEmpty, match="no video frames"):
        decode_video(put(whole, whole.index(b"\xd7\x81\x01\x73\xc5"), b"\xd7\x81\xff"))
    # An element of 2^49 bytes, longer than any file.
    far = put(webm, webm.index(b"\x1f\x43\xb6\x75"), b"\xec\x01\x02" + bytes(6))
    with pytest.raises((MediaCorrupt, MediaEmpty)):
        decode_video(far)
    # A table of times that is smaller than its own header.
    mp4 = clip.read_bytes()
    with pytest.raises(MediaError):
        decode_video(put(mp4, mp4.index(b"stts") - 4, (8).to_bytes(4, "big")))
