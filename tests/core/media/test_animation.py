"""Animated GIF, WebP, PNG and AVIF files as videos: which frames, when, and what is refused."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.decoded_media import DecodedImage, DecodedVideo
from omnitrace_core.errors import InvalidSample, MediaCorrupt, MediaEmpty, MediaError, MediaTooLarge
from omnitrace_core.media import SampleDecoder, animation, decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions
from tests.core.media_files import image_bytes, run_ffmpeg

RULES = MediaRules()
DEFAULTS = MediaOptions()
STEP = 20
SIZE = (84, 56)
RED, WHITE = (200, 0, 0), (255, 255, 255)
FORMS: dict[str, dict[str, Any]] = {
    "GIF": {},
    "WEBP": {"lossless": True},
    "PNG": {},
    "AVIF": {"quality": 100},
}


def animated(
    form: str, durations: list[int] | int, n: int = 6, size: tuple[int, int] = SIZE, **options: Any
) -> bytes:
    """`n` frames, frame i of grey i * STEP. durations: in ms."""
    frames = [Image.new("RGB", size, (i * STEP,) * 3) for i in range(n)]
    content = io.BytesIO()
    options = {**FORMS[form], **options}
    frames[0].save(
        content, form, save_all=True, append_images=frames[1:], duration=durations, **options
    )
    return content.getvalue()


def decode(data: bytes, run: MediaOptions = DEFAULTS, **options: Any) -> DecodedVideo:
    decoded = decode_part(Part("video", data=data, options=PartOptions(**options)), run, RULES)
    assert isinstance(decoded, DecodedVideo)
    return decoded


def indices(video: DecodedVideo) -> list[int]:
    return [round(float(frame.mean()) / STEP) for frame in video.frames]


@pytest.mark.parametrize("form", FORMS)
def test_frames_at_a_constant_rate_are_sampled_as_those_of_a_video_file(form: str) -> None:
    video = decode(animated(form, 250), fps=2)
    # 1.5 s at 2 per second are 3 frames; the model's rule takes 4 at least.
    assert indices(video) == [0, 2, 3, 5]
    np.testing.assert_allclose(video.frame_times_s, [0.0, 0.5, 0.75, 1.25])
    assert (video.start_s, video.end_s, video.duration_s) == (0.0, 1.5, 1.5)
    assert video.fps == pytest.approx(4 / 1.5)
    assert (video.width, video.height, video.sound) == (*SIZE, None)
    every = decode(animated(form, 250), nframes=6)
    assert indices(every) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(every.frame_times_s, np.arange(6) / 4)
    cut = decode(animated(form, 250), fps=4, video_start=0.5, video_end=1.0)
    assert indices(cut) == [2, 4]
    np.testing.assert_allclose(cut.frame_times_s, [0.5, 1.0])
    assert (cut.start_s, cut.end_s) == (0.5, 1.25)


@pytest.mark.parametrize("form", FORMS)
def test_a_frame_is_shown_as_long_as_the_file_says(form: str) -> None:
    durations = [100, 200, 2000, 50, 300, 1350]
    video = decode(animated(form, durations), fps=2)
    starts = np.append(0, np.cumsum(durations))[:-1] / 1000
    assert video.duration_s == pytest.approx(4.0, abs=0.002)
    # What is shown at even times, because the model is told a constant rate: six samples at most.
    times = np.linspace(0, starts[-1], 6)
    shown = np.searchsorted(starts, times + 0.002, side="right") - 1
    assert indices(video) == shown.tolist() == [0, 2, 2, 2, 2, 5]
    np.testing.assert_allclose(video.frame_times_s, [0.0, 0.3, *times[2:]], atol=0.002)
    assert video.fps == pytest.approx(1.5, abs=0.002)


@pytest.mark.parametrize("step", [40, 1000])
@pytest.mark.parametrize(
    "options",
    [{"nframes": 30}, {"fps": 1000.0}, {"nframes": 4}, {"fps": 2.0}, {"video_end": 0.01}, {}],
)
def test_an_mp4_file_of_the_same_frames_gives_the_same_samples(
    tmp_path_factory: pytest.TempPathFactory, step: int, options: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("a") / "a.mp4"
    grey = np.repeat(np.arange(7, dtype=np.uint8) * STEP, SIZE[0] * SIZE[1]).tobytes()
    raw = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{SIZE[0]}x{SIZE[1]}")
    full = ("-pix_fmt", "yuvj420p", "-color_range", "pc", "-qp", "4")
    run_ffmpeg(*raw, "-r", str(1000 / step), "-i", "-", *full, path, stdin=grey)
    expected = decode(path.read_bytes(), **options)
    for form in FORMS:
        video = decode(animated(form, step, n=7), **options)
        assert indices(video) == indices(expected)
        np.testing.assert_allclose(video.frame_times_s, expected.frame_times_s, atol=1e-6)
        assert (video.notes, video.fps) == (expected.notes, pytest.approx(expected.fps))


def test_rounded_times_of_avif_do_not_add_up(tmp_path: Path) -> None:
    """180 frames at 30 per second are 6 s; 33 ms for each would be 5.94 s."""
    source = ("-f", "lavfi", "-i", "testsrc=s=64x48:r=30:d=6", "-c:v", "libaom-av1", "-cpu-used")
    run_ffmpeg(*source, "8", tmp_path / "a.avif")
    video = decode((tmp_path / "a.avif").read_bytes())
    assert (len(video.frames), video.duration_s) == (12, pytest.approx(6.0, abs=1e-3))
    np.testing.assert_allclose(video.frame_times_s, np.linspace(0, 179, 12).round() / 30, atol=1e-3)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_frames_without_a_duration_are_shown_as_browsers_do(form: str) -> None:
    video = decode(animated(form, [0, 400, 0, 0, 400, 400]), nframes=6)
    assert video.duration_s == pytest.approx(1.5)
    assert video.notes == ("3 frames without a duration; shown for 0.1 s each",)


def test_a_loop_is_shown_once() -> None:
    looped = decode(animated("GIF", 250, loop=0), fps=2)
    assert looped.duration_s == decode(animated("GIF", 250), fps=2).duration_s == 1.5


@pytest.mark.parametrize(
    ("form", "options", "beside"),
    [
        ("PNG", {"disposal": 0, "blend": 1}, RED),
        ("PNG", {"disposal": 0, "blend": 0}, WHITE),
        ("PNG", {"disposal": 1, "blend": 1}, WHITE),
        ("GIF", {"disposal": 1}, RED),
        ("GIF", {"disposal": 2}, WHITE),
        ("WEBP", {"lossless": True}, WHITE),
    ],
)
def test_each_frame_is_drawn_over_those_before_it(
    form: str, options: dict[str, Any], beside: tuple[int, int, int]
) -> None:
    """The second has blue on its left, and shows what was there, or was cleared, on its right."""
    base = Image.new("RGBA", SIZE, (*RED, 255))
    if options.get("disposal") == 2:  # without transparency, it clears to a colour of the palette
        base.paste((0, 0, 0, 0), (0, SIZE[1] - 4, *SIZE))
    patch = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    patch.paste((0, 0, 200, 255), (0, 0, SIZE[0] // 2, SIZE[1]))
    content = io.BytesIO()
    base.save(content, form, save_all=True, append_images=[patch], duration=500, **options)
    video = decode(content.getvalue(), nframes=2)
    _, height, width, _ = video.frames.shape
    row = video.frames[1, height // 2].astype(int)
    assert np.abs(video.frames[0, height // 2].astype(int) - RED).max() <= 2
    assert np.abs(row[width // 8] - (0, 0, 200)).max() <= 2
    assert np.abs(row[-width // 8] - beside).max() <= 2
    assert any("transparency put on white" in note for note in video.notes) == (beside == WHITE)


def test_a_png_files_picture_for_other_readers_is_no_frame() -> None:
    frames = [Image.new("RGB", SIZE, (i * STEP,) * 3) for i in (9, 1, 2)]
    content = io.BytesIO()
    frames[0].save(
        content, "PNG", save_all=True, append_images=frames[1:], default_image=True, duration=500
    )
    video = decode(content.getvalue(), nframes=2)
    assert indices(video) == [1, 2]
    assert (video.frame_times_s.tolist(), video.duration_s) == ([0.0, 0.5], 1.0)


@pytest.mark.parametrize("form", FORMS)
def test_truncated_files_are_refused(form: str) -> None:
    data = animated(form, 250)
    for kept in (0.3, 0.6, 0.9):
        with pytest.raises(MediaError):
            decode(data[: int(len(data) * kept)], nframes=2)


def test_a_gif_that_ends_after_a_frame_is_refused() -> None:
    """Pillow reads the frames that are there, and misses none."""
    data = animated("GIF", 250)
    with pytest.raises(MediaCorrupt, match="truncated: it has no end mark"):
        decode(data[:-1], nframes=2)
    assert decode(data + b"\n", nframes=2).notes == ()


def test_a_png_that_tells_more_frames_than_it_has_is_refused() -> None:
    data = animated("PNG", 250)
    at = data.index(b"acTL") + 4
    more = data[:at] + struct.pack(">I", 7) + data[at + 4 :]
    with pytest.raises(MediaCorrupt):
        decode(more, nframes=2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [12, 16, 20, 21, 30])
def test_a_header_alone_is_refused(form: str, length: int) -> None:
    with pytest.raises(MediaError):
        decode(animated(form, 250)[:length])


@pytest.mark.parametrize("form", FORMS)
def test_a_still_picture_is_no_video(form: str) -> None:
    still = image_bytes(Image.new("RGB", SIZE), form)
    with pytest.raises(MediaCorrupt, match="not animated; make its part an image"):
        decode(still)


@pytest.mark.parametrize("form", FORMS)
def test_as_an_image_it_is_its_first_frame(form: str) -> None:
    image = decode_part(Part("image", data=animated(form, 250)), DEFAULTS, RULES)
    assert isinstance(image, DecodedImage)
    assert image.pixels.max() <= 2
    assert image.notes == ("first of 6 frames",)


def test_limits_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = animated("WEBP", 250)
    with pytest.raises(MediaTooLarge, match=r"media\.max_video_s=1\.4"):
        decode(data, MediaOptions(max_video_s=1.4))
    with pytest.raises(MediaTooLarge, match=r"media\.max_image_pixels"):
        decode(data, MediaOptions(max_image_pixels=84 * 56 - 1))
    with pytest.raises(MediaTooLarge, match=r"media\.max_decoded_mib"):
        decode(data, MediaOptions(max_decoded_mib=1), min_pixels=10**6)
    with pytest.raises(MediaEmpty):
        decode(data, video_start=3.0)
    for form in FORMS:
        for limit, value in (("_MAX_FRAMES", 5), ("_MAX_PIXELS", 6 * 84 * 56 - 1)):
            with monkeypatch.context() as lowered:
                lowered.setattr(animation, limit, value)
                with pytest.raises(MediaTooLarge, match="make it a video file"):
                    decode(animated(form, 250))


@pytest.mark.slow
def test_many_small_frames_end_by_their_count() -> None:
    """A hundred thousand frames, and two million comments between two."""
    frame = (
        b"\x21\xf9\x04\x04\x05\0\0\0\x2c\0\0\0\0" + struct.pack("<HHB", 1, 1, 0) + b"\2\2\x44\1\0"
    )
    head = b"GIF89a" + struct.pack("<HH", 8, 8) + b"\x80\0\0" + bytes(3) + b"\xff" * 3
    with pytest.raises(MediaTooLarge):
        decode(head + frame * 100_000 + b";")
    with pytest.raises(MediaTooLarge, match="more entries"):
        decode(head + frame + b"\x21\xfe\1A\0" * 2_000_000 + frame + b";")


def test_the_other_reader_is_none_of_animations() -> None:
    decord = decode(animated("GIF", 250), MediaOptions(video_reader="decord"))
    assert "read with Pillow, not with media.video_reader=decord" in decord.notes


def test_it_has_no_sound_track_to_choose() -> None:
    with pytest.raises(InvalidSample, match="audio_track"):
        decode(animated("GIF", 250), audio_track=1)


def test_from_a_file_in_a_child_process(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(animated("GIF", 250))
    part = Part("video", uri=str(path), options=PartOptions(nframes=6))
    decoded = SampleDecoder(DEFAULTS, RULES, isolate=True).decode_part(part)
    assert isinstance(decoded, DecodedVideo)
    assert indices(decoded) == [0, 1, 2, 3, 4, 5]
    assert decoded.sha256 == decode(path.read_bytes()).sha256
