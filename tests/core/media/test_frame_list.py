"""Videos that are lists of pictures: which frames, when, at what size, and their errors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import InvalidSample, MediaDenied, MediaError
from omnitrace_core.media import SampleDecoder, decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Frame, Part, PartOptions
from omnitrace_core.units.extents import frame_bins
from tests.core.media_files import audio_bytes, beep, image_bytes

RULES = MediaRules()
DEFAULTS = MediaOptions()
# Written with small steps of grey, so that the order of frames can be read from them.
STEP = 10


def picture(index: int, size: tuple[int, int] = (112, 84), **options: Any) -> bytes:
    return image_bytes(Image.new("RGB", size, (index * STEP,) * 3), **options)


def listed(n: int) -> tuple[Frame, ...]:
    return tuple(Frame(data=picture(i)) for i in range(n))


def decode(frames: tuple[Frame, ...], run: MediaOptions = DEFAULTS, **options: Any) -> DecodedVideo:
    part = Part("video", frames=frames, options=PartOptions(**options))
    decoded = decode_part(part, run, RULES)
    assert isinstance(decoded, DecodedVideo)
    return decoded


def indices(video: DecodedVideo) -> list[int]:
    return [round(float(frame.mean()) / STEP) for frame in video.frames]


def test_each_frame_is_shown_from_its_index_through_the_rate_on() -> None:
    video = decode(listed(6), fps=4)
    assert indices(video) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(video.frame_times_s, np.arange(6) / 4)
    assert (video.start_s, video.end_s, video.duration_s, video.fps) == (0.0, 1.5, 1.5, 4.0)
    assert frame_bins(video, RULES.frame_factor) == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)]
    assert (video.width, video.height, video.sound, video.notes) == (112, 84, None, ())


def test_a_rate_that_is_not_given_is_noted() -> None:
    video = decode(listed(4))
    assert (video.fps, video.duration_s) == (2.0, 2.0)
    assert video.notes == ("no fps given with the list of frames; 2 per second assumed",)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_an_odd_number_of_frames_ends_with_the_last_one_twice(n: int) -> None:
    video = decode(listed(n), fps=2)
    repeated = n % 2
    assert indices(video) == [*range(n), *[n - 1] * repeated]
    assert video.notes == ((f"{n} frames; the last one repeated to {n + 1}",) if repeated else ())
    # What is shown lasts as long as the list does.
    assert (video.end_s, video.fps) == (n / 2, 2.0)
    assert video.frame_times_s[-1] == (n - 1) / 2


@pytest.mark.parametrize(
    ("run", "options", "chosen", "note"),
    [
        ({}, {"nframes": 4}, [0, 3, 6, 9], "4 of the 10 listed frames sampled"),
        ({}, {"max_frames": 4}, [0, 3, 6, 9], "4 of the 10 listed frames sampled"),
        ({"max_frames": 5}, {}, [0, 3, 6, 9], "4 of the 10 listed frames sampled"),
        # The rate of the list is no wish for fewer frames.
        ({"video_fps": 1.0}, {}, list(range(10)), None),
        ({}, {"nframes": 20}, list(range(10)), "20 frames asked for, the list has 10"),
        ({}, {"video_start": 1.0, "video_end": 2.5}, [2, 3, 4, 5], None),
        ({}, {"video_start": 4.0}, [8, 9], None),
        ({}, {"video_start": 1.0, "nframes": 2}, [2, 9], "2 of the 8 listed frames sampled"),
        ({}, {"min_frames": 40}, list(range(10)), "min_frames=40, but the model gets 10 frames"),
    ],
)
def test_options_choose_frames_on_the_clock_of_the_list(
    run: dict[str, Any], options: dict[str, Any], chosen: list[int], note: str | None
) -> None:
    video = decode(listed(10), MediaOptions(**run), fps=2, **options)
    assert indices(video) == chosen
    np.testing.assert_allclose(video.frame_times_s, np.array(chosen) / 2)
    assert video.notes == ((note,) if note else ())
    first, last = chosen[0], chosen[-1]
    assert (video.start_s, video.end_s) == (first / 2, (last + 1) / 2)
    # The rate that the model is told is that of the chosen frames.
    assert video.fps == pytest.approx(len(chosen) / (video.end_s - video.start_s))


def test_frames_are_scaled_once_as_those_of_a_file() -> None:
    """Qwen's code scales a list twice, first to multiples of 56: to 616x504."""
    frames = tuple(Frame(data=picture(i, (640, 480))) for i in range(4))
    assert decode(frames, fps=2).frames.shape == (4, 476, 644, 3)


def test_the_hash_is_of_the_hashes_of_all_listed_files() -> None:
    frames = listed(10)
    digests = b"".join(hashlib.sha256(frame.data or b"").digest() for frame in frames)
    assert decode(frames, fps=2).sha256 == hashlib.sha256(digests).hexdigest()
    # Also of those that are not used: another list is another video.
    assert decode(frames, fps=2, nframes=2).sha256 == hashlib.sha256(digests).hexdigest()
    assert decode(frames[::-1], fps=2).sha256 != hashlib.sha256(digests).hexdigest()


def test_frames_are_upright_and_on_white() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    clear = Image.new("RGBA", (84, 112), (0, 0, 0, 0))
    frames = (
        Frame(data=picture(1, (112, 84), form="JPEG", exif=turned)),
        Frame(data=image_bytes(clear)),
        Frame(data=image_bytes(clear)),
    )
    video = decode(frames, fps=2)
    assert (video.width, video.height) == (84, 112)
    assert video.frames[1:].min() == 255
    assert video.notes[1:] == ("2 frames (first 1): transparency put on white",)


def _at(index: int, frame: Frame, n: int = 4) -> tuple[Frame, ...]:
    frames = list(listed(n))
    frames[index] = frame
    return tuple(frames)


SOUND = audio_bytes(beep(0.1, [0]), 16_000)


@pytest.mark.parametrize(
    ("frame", "run", "code", "words"),
    [
        (Frame(uri="none.png"), {}, "media_missing", "none.png"),
        (Frame(uri="s3://box/2.png?token=secret"), {}, "media_denied", "media.allow"),
        (Frame(uri="https://h/2.png"), {}, "media_denied", "media.web_hosts"),
        (Frame(uri="/etc/hostname"), {"roots": ("{tmp}",)}, "media_denied", "media.roots"),
        (Frame(data=b""), {}, "media_empty", None),
        (Frame(data=picture(2)[:60]), {}, "media_corrupt", "damaged"),
        (Frame(data=SOUND), {}, "media_corrupt", "the bytes are WAV"),
        (Frame(), {}, "invalid_sample", "neither"),
        (Frame(data=picture(2, (112, 112))), {}, "media_error", "112x112 pixels, but the first"),
        (Frame(data=picture(2, (84, 112))), {}, "media_error", "84x112 pixels, but the first"),
        (Frame(data=picture(2, (500, 500))), {"max_image_pixels": 10**5}, "media_too_large", None),
        (Frame(data=picture(2) + bytes(9999)), {"max_bytes": 9000}, "media_too_large", "max_bytes"),
    ],
)
def test_errors_name_the_frame(
    frame: Frame, run: dict[str, Any], code: str, words: str | None, tmp_path: Path
) -> None:
    if "roots" in run:
        run = {"roots": (str(tmp_path),)}
    part = Part("video", frames=_at(2, frame), options=PartOptions(fps=2))
    with pytest.raises((MediaError, InvalidSample), match=words) as caught:
        SampleDecoder(MediaOptions(**run), RULES).decode_parts([Part("text", text="?"), part])
    assert caught.value.code == code
    assert str(caught.value).startswith("part 1: frame 2: ")
    assert "secret" not in str(caught.value)


def test_limits_of_the_whole_list() -> None:
    frames = listed(8)
    sizes = sum(len(frame.data or b"") for frame in frames)
    decode(frames, MediaOptions(max_bytes=sizes), fps=2)
    with pytest.raises(MediaError, match=r"frame 7: with it the list takes"):
        decode(frames, MediaOptions(max_bytes=sizes - 1), fps=2)
    with pytest.raises(MediaError, match=r"8 frames .*: 4\.0 s at 2 frames per second"):
        decode(frames, MediaOptions(max_video_s=3.9), fps=2)
    with pytest.raises(InvalidSample, match="at most 1000 frames per second"):
        decode(frames, fps=1001)
    with pytest.raises(MediaError, match=r"media\.max_decoded_mib"):
        decode(frames, MediaOptions(max_decoded_mib=1), fps=2, min_pixels=10**6)
    with pytest.raises(MediaError, match=r"nframes=8, above media\.max_frames=4"):
        decode(frames, MediaOptions(max_frames=4), fps=2, nframes=8)


def test_a_list_is_neither_another_type_nor_beside_a_file() -> None:
    for part in (
        Part("image", frames=listed(2)),
        Part("video", uri="v.mp4", frames=listed(2)),
        Part("video", data=b"v", frames=listed(2)),
    ):
        with pytest.raises(InvalidSample, match="a list of frames is a video of its own"):
            decode_part(part, DEFAULTS, RULES)


def test_the_other_reader_is_none_of_lists() -> None:
    decord = decode(listed(2), MediaOptions(video_reader="decord"), fps=2)
    assert decord.notes == ("read with Pillow, not with media.video_reader=decord",)


def test_a_list_has_no_sound_track_to_choose() -> None:
    with pytest.raises(InvalidSample, match="audio_track"):
        decode(listed(2), fps=2, audio_track=1)


def test_in_a_child_process_and_from_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_bytes(picture(i))
    part = Part(
        "video",
        frames=tuple(Frame(uri=str(path)) for path in paths),
        options=PartOptions(fps=1, video_start=1.0),
    )
    here = SampleDecoder(DEFAULTS, RULES).decode_part(part)
    there = SampleDecoder(DEFAULTS, RULES, isolate=True).decode_part(part)
    assert isinstance(here, DecodedVideo)
    assert isinstance(there, DecodedVideo)
    assert indices(here) == indices(there) == [1, 2]
    assert here.sha256 == there.sha256
    outside = MediaOptions(roots=(str(tmp_path / "other"),))
    with pytest.raises(MediaDenied, match="frame 0: "):
        decode_part(part, outside, RULES)
