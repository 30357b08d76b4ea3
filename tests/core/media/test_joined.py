"""Files made of several, as `cat` makes them: they are heard whole, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media_files import audio_bytes, beep, onset_s, run_ffmpeg, write_clip

RATE = 44_100
FRAME = 1152
NO_XING, NO_TAG = ("-write_xing", "0"), ("-id3v2_version", "0")


def decode(data: bytes) -> DecodedAudio:
    decoded = decode_part(Part("audio", data=data), MediaOptions(), MediaRules())
    assert isinstance(decoded, DecodedAudio)
    return decoded


def encoded(folder: Path, name: str, seconds: float, *output: str, at: float = 0.5) -> bytes:
    """A file with a beep at `at`."""
    (folder / "a.wav").write_bytes(audio_bytes(beep(seconds, [at], RATE), RATE))
    run_ffmpeg("-i", folder / "a.wav", *output, folder / name)
    return (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "is_exact"),
    [
        (((), ()), True),
        ((("-write_id3v1", "1"), ("-write_id3v1", "1")), True),
        ((("-write_apetag", "1"), ()), True),
        ((NO_TAG, NO_TAG), True),
        ((NO_XING, NO_XING), False),
        ((NO_XING, ()), False),
        ((NO_XING + NO_TAG, NO_XING + NO_TAG), False),
        ((NO_XING, NO_XING, NO_XING), False),
    ],
)
def test_joined_mp3_are_heard_one_after_the_other(
    tmp_path: Path, flags: Sequence[tuple[str, ...]], is_exact: bool
) -> None:
    parts = [encoded(tmp_path, "a.mp3", 2 + k, *output) for k, output in enumerate(flags)]
    decoded = decode(b"".join(parts))
    begin_s = 0.0
    for k in range(len(flags)):
        sound = decoded.waveform[round(begin_s * 16_000) :]
        slack = 0.001 if is_exact else 2 * FRAME * (k + 1) / RATE
        assert onset_s(sound, 16_000) == pytest.approx(0.5, abs=slack)
        begin_s += 2 + k
    total = sum(2 + k for k in range(len(flags)))
    slack = 1e-3 if is_exact else 3 * FRAME * len(flags) / RATE
    assert decoded.duration_s == pytest.approx(total, abs=slack)


def test_joined_mp3_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    first = encoded(tmp_path, "a.mp3", 2)
    bare = encoded(tmp_path, "a.mp3", 3, *NO_TAG, *NO_XING)
    slower = encoded(tmp_path, "a.mp3", 2, "-ar", "22050")
    with pytest.raises(MediaCorrupt, match=r"its header is wrong: it declares \d+ frames"):
        decode(first + bare)
    for joined in (first + slower, first[:-50] + first, first + first[50:], first + bytes(9000)):
        with pytest.raises(MediaCorrupt, match=r"no frame at byte|truncated"):
            decode(joined)
    # Zeros in the middle, from the end of one frame on, are a hole and not a tag's padding.
    with pytest.raises(MediaCorrupt, match=r"no frame at byte|declares \d+ frames"):
        decode(first[: len(first) // 2] + bytes(2000) + bare)


def test_tags_around_one_mp3(tmp_path: Path) -> None:
    plain = encoded(tmp_path, "a.mp3", 2, *NO_TAG)
    tag = b"ID3\x04\0\0\0\0\x01\0" + bytes(128)
    for data in (tag + plain, tag + tag + plain, plain + tag, plain + b"TAG" + bytes(125)):
        assert decode(data).duration_s == 2.0
    # A tag that declares more than there is might hide frames.
    with pytest.raises(MediaCorrupt, match="truncated"):
        decode(plain + tag[:-20])


FORMS = {
    "wav": ("a.wav",),
    "m4a": ("a.m4a",),
    "fast": ("b.m4a", "-movflags", "+faststart"),
    "fragments": ("c.m4a", "-movflags", "frag_keyframe+empty_moov"),
    "mkv": ("a.mkv",),
    "live": ("d.mkv", "-live", "1"),
    "flv": ("a.flv",),
    "avi": ("a.avi",),
    "caf": ("a.caf",),
    "aiff": ("a.aiff",),
    "flac": ("a.flac",),
    "ogg": ("a.ogg", "-c:a", "libvorbis"),
    "opus": ("a.opus", "-c:a", "libopus"),
    "mp3": ("a.mp3",),
    "aac": ("a.aac",),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One second of each format, and an RF64 file."""
    folder = tmp_path_factory.mktemp("joined")
    made = {}
    for form, (name, *output) in FORMS.items():
        wav = folder / "source.wav"
        wav.write_bytes(audio_bytes(beep(1.0, [0.5], RATE), RATE))
        run_ffmpeg("-i", wav, *output, folder / name)
        made[form] = (folder / name).read_bytes()
    made["rf64"] = audio_bytes(beep(1.0, [0.5], RATE), RATE, "RF64")
    return made


@pytest.mark.parametrize("first", [*FORMS, "rf64"])
def test_a_file_followed_by_any_other_is_heard_whole_or_refused(
    files: dict[str, bytes], first: str
) -> None:
    assert decode(files[first]).duration_s == pytest.approx(1.0, abs=0.06)
    for second, data in files.items():
        try:
            decoded = decode(files[first] + data)
        except MediaCorrupt:
            continue
        assert (first, second) in (("aac", "aac"), ("mp3", "mp3"))
        assert decoded.duration_s == pytest.approx(2.0, abs=0.12)
        assert np.abs(decoded.waveform[20_000:]).max() > 0.2


def test_joined_videos_are_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 10, sound=beep(1, [0.5], RATE))
    for name in ("a.mp4", "b.mov", "c.mkv", "d.flv", "e.avi", "f.webm"):
        codecs = {"f.webm": ("-c:v", "libvpx", "-live", "1"), "e.avi": ("-c:v", "mjpeg")}
        path = tmp_path / name
        if path != clip:
            run_ffmpeg("-i", clip, *codecs.get(name, ("-c", "copy")), path)
        data = path.read_bytes()
        if name != "f.webm":  # decord does not read it
            decode_part(Part("video", data=data), MediaOptions(), MediaRules())
        for kind in ("video", "audio"):
            with pytest.raises(MediaCorrupt):
                decode_part(Part(kind, data=data + data), MediaOptions(), MediaRules())
