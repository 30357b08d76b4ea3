"""Files of another format than they seem, or with another length than they declare."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np

from tests.core.media_files import audio_bytes, beep, run_ffmpeg

PLAYLIST = (
    b"#EXTM3U\nAVI \n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n%s\n#EXT-X-ENDLIST\n"
)
SESSION = b"\nv=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP\n"


def playlist_as_avi(address: str) -> bytes:
    """A playlist with the tag of AVI in its place, and with the length that its bytes declare."""
    return (PLAYLIST % address.encode()).ljust(8 + int.from_bytes(b"M3U\n", "little"), b"\0")


def session_as_aac() -> bytes:
    """One frame of AAC whose content is a description of network streams (SDP)."""
    n = 7 + len(SESSION)
    return bytes((0xFF, 0xF1, 0x50, 0x40 | n >> 11, n >> 3 & 0xFF, n << 5 & 0xE0 | 31, 0xFC)) + (
        SESSION
    )


def put(content: bytes, at: int, new: bytes) -> bytes:
    """The content with some bytes replaced."""
    return content[:at] + new + content[at + len(new) :]


def wav_declaring_a_tenth(wav: bytes) -> bytes:
    """A WAV whose header declares a tenth of its content."""
    at = wav.index(b"data") + 4
    (n_bytes,) = struct.unpack_from("<I", wav, at)
    return put(wav, at, struct.pack("<I", n_bytes // 10))


def flac_declaring(flac: bytes, n_samples: int) -> bytes:
    """A FLAC whose header declares `n_samples`."""
    return put(flac, 21, bytes([flac[21] & 0xF0]) + struct.pack(">I", n_samples))


def mp3_declaring(mp3: bytes, n_frames: int) -> bytes:
    """An MP3 whose Xing header declares `n_frames`."""
    at = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    return put(mp3, at + 8, struct.pack(">I", n_frames))


def converted(content: bytes, source: str, target: str, *options: str) -> bytes:
    """A file converted by ffmpeg; source, target: file names, for their extensions."""
    with tempfile.TemporaryDirectory() as folder:
        source_path, target_path = Path(folder) / source, Path(folder) / target
        source_path.write_bytes(content)
        run_ffmpeg("-i", source_path, *options, target_path)
        return target_path.read_bytes()


def with_external_media(mov: bytes) -> bytes:
    """A movie whose data references do not point to the file itself."""
    at = mov.index(b"dref") + 12
    return put(mov, at + 8, bytes(4))


def false_audio() -> dict[str, bytes]:
    """Audio files that must be refused, by file name."""
    tone = beep(2.0, [0.2, 1.5])
    wav, flac, ogg = (audio_bytes(tone, 16_000, form) for form in ("WAV", "FLAC", "OGG"))
    mp3, aiff = audio_bytes(tone, 16_000, "MP3"), audio_bytes(tone, 16_000, "AIFF")
    rf64, flat = audio_bytes(tone, 16_000, "RF64"), audio_bytes(tone, 16_000, "AU")
    bare = converted(wav, "a.wav", "a.mp3", "-write_xing", "0", "-id3v2_version", "0")
    return {
        "session-inside.aac": session_as_aac(),
        "declares-a-tenth.wav": wav_declaring_a_tenth(wav),
        "declares-half.flac": flac_declaring(flac, len(tone) // 2),
        "declares-ten-frames.mp3": mp3_declaring(mp3, 10),
        "two-streams.ogg": ogg + ogg,
        "truncated-aiff.aiff": aiff[: len(aiff) // 2],
        "truncated-rf64.wav": rf64[: len(rf64) // 2],
        "truncated-bare.mp3": bare[: len(bare) // 2 + 7],
        "unchecked-format.au": flat,
        "playlist.wav": playlist_as_avi("/etc/passwd")[:4096],
    }


def false_videos(mp4: bytes) -> dict[str, bytes]:
    """Video files that must be refused, by file name. mp4: a clip with sound."""
    flv = converted(mp4, "a.mp4", "a.flv", "-c", "copy")
    mov, mkv, avi, stream = (
        converted(mp4, "a.mp4", f"a.{kind}", *codec)
        for kind, codec in (
            ("mov", ("-c", "copy")),
            ("mkv", ("-c", "copy")),
            ("avi", ("-c:v", "mjpeg")),
            ("ts", ("-c", "copy")),
        )
    )
    return {
        "playlist-as-avi.avi": playlist_as_avi("/etc/passwd"),
        "playlist-as-mp4.mp4": put(PLAYLIST % b"/etc/passwd", 4, b"ftyp"),
        "session.ts": b"G@" + SESSION,
        "huge-header.webm": b"\x1aE\xdf\xa3\x01\x7f" + b"\xff" * 6 + bytes(64),
        "truncated-flv.flv": flv[: len(flv) // 2],
        "external-media.mov": with_external_media(mov),
        "joined-mp4.mp4": mp4 + mp4,
        "joined-mov.mov": mov + mp4,
        "joined-mkv.mkv": mkv + mkv,
        "joined-flv.flv": flv + flv,
        "joined-avi.avi": avi + avi,
        "joined-ts.ts": stream + stream,
    }


def noise(seconds: float, rate: int = 44_100) -> np.ndarray:
    """Noise, which needs many bits per second: [n] float32."""
    return np.random.default_rng(0).normal(0, 0.2, round(seconds * rate)).astype(np.float32)
