"""Bad media, and unusual but valid media, each with the code of the error row that it causes.

`bad_media` writes the files and lists them; tests of the decoders and of the pipeline use the list.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tests.core.media.false_headers import false_audio, false_videos
from tests.core.media_files import audio_bytes, beep, image_bytes, run_ffmpeg, write_clip

TRACED = ""


@dataclass(frozen=True, slots=True)
class BadMedium:
    """One case.

    name: of the case. kind: image, audio or video. uri: address of the file. code: of the error
    row, TRACED if the media are valid. options: of the part.
    """

    name: str
    kind: str
    uri: str
    code: str
    options: Mapping[str, float] = field(default_factory=dict)


Make = Callable[[Path], object]


def bad_media(folder: Path, outside: Path) -> list[BadMedium]:
    """Write the files into `folder`; `outside` is a folder that lies outside the roots."""
    clip = write_clip(folder / "sound.mp4", 20, sound=beep(2.0, [0.5, 1.5]), sound_rate=16_000)
    media: list[BadMedium] = []
    for kind, cases in (
        ("image", _images()),
        ("audio", _audio()),
        ("video", _videos(clip.read_bytes())),
    ):
        for name, suffix, code, make in cases:
            path = folder / f"{kind}-{name}{suffix}"
            make(path)
            media.append(BadMedium(f"{kind}-{name}", kind, str(path), code))
    false_files = {"audio": false_audio(), "video": false_videos(clip.read_bytes())}
    for kind, files in false_files.items():
        for file_name, content in files.items():
            path = folder / f"{kind}-{file_name}"
            path.write_bytes(content)
            media.append(BadMedium(f"{kind}-{path.stem}", kind, str(path), "media_corrupt"))
    return media + list(_bombs(folder, clip)) + list(_addresses(folder, outside))


def _bombs(folder: Path, clip: Path) -> Iterator[BadMedium]:
    """Small files whose part options request too many pixels."""
    small, code = folder / "image-small.png", "media_too_large"
    small.write_bytes(image_bytes(Image.new("RGB", (64, 64))))
    yield BadMedium("image-scaled-up", "image", str(small), code, {"min_pixels": 400_000_000})
    options = {"min_pixels": 100_000_000, "nframes": 20}
    yield BadMedium("video-scaled-up", "video", str(clip), code, options)


Rows = Iterator[tuple[str, str, str, Make]]


def _images() -> Rows:
    picture = Image.fromarray(_noise_image(64, 48))
    png, jpeg = image_bytes(picture), image_bytes(picture, "JPEG")
    webp, tiff = image_bytes(picture, "WEBP"), image_bytes(picture, "TIFF")
    yield "zero-bytes", ".png", "media_empty", _file_of(b"")
    yield "truncated-png", ".png", "media_corrupt", _file_of(png[: len(png) // 2])
    yield "truncated-jpeg", ".jpg", "media_corrupt", _file_of(jpeg[: len(jpeg) // 2])
    yield "truncated-webp", ".webp", "media_corrupt", _file_of(webp[: len(webp) // 2])
    yield "truncated-tiff", ".tif", "media_corrupt", _file_of(tiff[: len(tiff) // 2])
    yield "header-alone", ".png", "media_corrupt", _file_of(png[:33])
    yield "flipped-bits", ".png", "media_corrupt", _file_of(_with_flipped_bits(png))
    yield "text", ".png", "media_corrupt", _file_of(b"This is not a picture.")
    yield "web-page", ".jpg", "media_corrupt", _file_of(b"<!doctype html><html></html>")
    yield "sound-inside", ".png", "media_corrupt", _file_of(audio_bytes(beep(0.2, [0]), 8000))
    yield "bomb", ".png", "media_too_large", _file_of(_png_header(60_000, 60_000))
    yield "one-row", ".png", "media_error", _file_of(image_bytes(Image.new("RGB", (5000, 1))))
    yield "one-pixel", ".png", TRACED, _file_of(image_bytes(Image.new("RGB", (1, 1))))
    yield "hundred-megapixels", ".png", TRACED, _large_picture
    yield "wrong-extension", ".gif", TRACED, _file_of(jpeg)
    yield "cmyk", ".jpg", TRACED, _file_of(image_bytes(picture.convert("CMYK"), "JPEG"))
    yield "16-bit", ".png", TRACED, _file_of(image_bytes(Image.fromarray(_deep_grey())))
    yield "palette", ".png", TRACED, _file_of(image_bytes(picture.convert("P")))
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    moving = image_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "animated", ".gif", TRACED, _file_of(moving)


def _audio() -> Rows:
    tone = beep(1.0, [0.2])
    wav, flac = audio_bytes(tone, 16_000), audio_bytes(tone, 16_000, "FLAC")
    ogg, mp3 = audio_bytes(tone, 16_000, "OGG"), audio_bytes(tone, 16_000, "MP3")
    broken = tone.copy()
    broken[100] = np.nan
    yield "zero-bytes", ".wav", "media_empty", _file_of(b"")
    yield "truncated-wav", ".wav", "media_corrupt", _file_of(wav[: len(wav) // 2])
    yield "truncated-flac", ".flac", "media_corrupt", _file_of(flac[: len(flac) // 2])
    yield "truncated-ogg", ".ogg", "media_corrupt", _file_of(ogg[: len(ogg) // 3])
    yield "truncated-mp3", ".mp3", "media_corrupt", _file_of(mp3[: len(mp3) // 3])
    yield (
        "false-length",
        ".wav",
        "media_corrupt",
        _file_of(_with_declared_length(wav, 40_000_000)),
    )
    yield "header-alone", ".wav", "media_empty", _file_of(audio_bytes(np.zeros(0), 16_000))
    yield (
        "zero-seconds",
        ".flac",
        "media_empty",
        _file_of(audio_bytes(tone[:0], 16_000, "FLAC")),
    )
    yield "ten-hours", ".wav", "media_too_large", _ten_hours
    yield "not-numbers", ".wav", "media_corrupt", _file_of(audio_bytes(broken, 16_000))
    yield "text", ".mp3", "media_corrupt", _file_of(b"This is not a sound." * 40)
    yield (
        "picture-inside",
        ".wav",
        "media_corrupt",
        _file_of(image_bytes(Image.new("L", (8, 8)))),
    )
    yield "wrong-extension", ".mp3", TRACED, _file_of(flac)
    yield "telephone", ".wav", TRACED, _file_of(audio_bytes(beep(1.0, [0.2], 8000), 8000))
    m4a = _aac(tone)
    yield "truncated-m4a", ".m4a", "media_corrupt", _file_of(m4a[: len(m4a) // 2])
    yield "damaged-m4a", ".m4a", "media_corrupt", _file_of(_with_zeros(m4a))
    yield "m4a", ".m4a", TRACED, _file_of(m4a)
    yield "silence", ".wav", TRACED, _file_of(audio_bytes(np.zeros(16_000), 16_000))
    yield "tenth-of-a-second", ".wav", TRACED, _file_of(audio_bytes(tone[:1600], 16_000))


def _videos(mp4: bytes) -> Rows:
    yield "zero-bytes", ".mp4", "media_empty", _file_of(b"")
    yield "truncated", ".mp4", "media_corrupt", _file_of(mp4[: len(mp4) // 2])
    yield "without-index", ".mp4", "media_corrupt", _file_of(mp4[: mp4.rindex(b"moov") - 4])
    yield "broken-index", ".mp4", "media_corrupt", _file_of(_with_wrong_offsets(mp4))
    yield "damaged-frames", ".mp4", "media_corrupt", _file_of(_with_noise_image(mp4))
    yield "text", ".mp4", "media_corrupt", _file_of(b"This is not a film." * 40)
    yield "playlist", ".mp4", "media_corrupt", _file_of(b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    yield (
        "script",
        ".mp4",
        "media_corrupt",
        _file_of(b"ffconcat version 1.0\nfile /etc/passwd\n"),
    )
    yield (
        "picture-inside",
        ".mp4",
        "media_corrupt",
        _file_of(image_bytes(Image.new("L", (8, 8)))),
    )
    yield "without-video", ".mp4", "media_empty", _without_video
    yield "ten-hours", ".mp4", "media_too_large", _slow_clip
    yield "without-sound", ".mp4", TRACED, lambda path: write_clip(path, 12)
    yield "one-frame", ".mp4", TRACED, lambda path: write_clip(path, 1)
    yield "wrong-extension", ".avi", TRACED, _file_of(mp4)


def _addresses(folder: Path, outside: Path) -> Iterator[BadMedium]:
    secret = outside / "secret.png"
    secret.write_bytes(image_bytes(Image.new("RGB", (32, 32))))
    link = folder / "link.png"
    link.symlink_to(secret)
    os.mkfifo(folder / "pipe.wav")
    climbing = folder / ".." / outside.name / secret.name
    for name, uri, code in (
        ("climbs-out", str(climbing), "media_denied"),
        ("link-out", str(link), "media_denied"),
        ("file-url", "file:///etc/passwd", "media_denied"),
        ("file-of-host", "file://elsewhere/a.png", "media_denied"),
        ("plain-http", "http://127.0.0.1/a.png", "media_denied"),
        ("loopback", "https://127.0.0.1/a.png", "media_denied"),
        ("metadata-service", "https://169.254.169.254/latest", "media_denied"),
        ("number-as-host", "https://2130706433/a.png", "media_denied"),
        ("unlisted-host", "https://example.org/a.png?token=hidden", "media_denied"),
        ("resolves-to-private", "https://localhost/a.png", "media_denied"),
        ("other-scheme", "ftp://example.org/a.png", "media_denied"),
        ("folder", str(folder), "media_denied"),
        ("pipe", str(folder / "pipe.wav"), "media_denied"),
        ("missing", str(folder / "nowhere.png"), "media_missing"),
        ("nul", f"{folder}/a\0b.png", "media_missing"),
    ):
        yield BadMedium(f"address-{name}", "image", uri, code)


def _file_of(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def _noise_image(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def _deep_grey() -> np.ndarray:
    return np.linspace(0, 65_535, 48 * 48).astype(np.uint16).reshape(48, 48)


def _with_flipped_bits(content: bytes) -> bytes:
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(255 - byte for byte in content[middle : middle + 64])
        + (content[middle + 64 :])
    )


def _png_header(width: int, height: int) -> bytes:
    """A small PNG whose header declares a huge size; its data unpack to 10 MB of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _large_picture(path: Path) -> None:
    Image.new("1", (10_000, 10_000), 1).save(path)


def _with_declared_length(wav: bytes, n_bytes: int) -> bytes:
    """A WAV file with another length in its header."""
    at = wav.index(b"data") + 4
    return wav[:at] + struct.pack("<I", n_bytes) + wav[at + 4 :]


def _ten_hours(path: Path) -> None:
    """Ten hours of silence at 1 kHz; a sparse file, so it costs no disk."""
    header = audio_bytes(np.zeros(0, np.float32), 1000)
    n_bytes = 36_000 * 1000 * 4
    path.write_bytes(_with_declared_length(header[: header.index(b"data") + 8], n_bytes))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + n_bytes)


def _with_wrong_offsets(mp4: bytes) -> bytes:
    """The file with an index whose offsets lie after its end."""
    at = mp4.index(b"stco") + 8
    n = struct.unpack(">I", mp4[at : at + 4])[0]
    return mp4[: at + 4] + struct.pack(">I", 0x7000_0000) * n + mp4[at + 4 + 4 * n :]


def _aac(waveform: np.ndarray) -> bytes:
    """An M4A file of a waveform at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        wav, m4a = Path(folder) / "a.wav", Path(folder) / "a.m4a"
        wav.write_bytes(audio_bytes(waveform, 16_000))
        run_ffmpeg("-i", wav, "-c:a", "aac", m4a)
        return m4a.read_bytes()


def _with_zeros(mp4: bytes) -> bytes:
    """The file with zeros in place of most of its media."""
    at = mp4.index(b"mdat") + 4
    size = int.from_bytes(mp4[at - 8 : at - 4], "big") - 8
    return mp4[: at + size // 4] + bytes(size - size // 4) + mp4[at + size :]


def _with_noise_image(mp4: bytes) -> bytes:
    at = mp4.index(b"mdat") + 200
    return mp4[:at] + np.random.default_rng(1).bytes(600) + mp4[at + 600 :]


def _without_video(path: Path) -> None:
    path.write_bytes(_aac(beep(1.0, [0.2])))


def _slow_clip(path: Path) -> None:
    write_clip(path, 12, video_filter="setpts=N*4000/TB")
