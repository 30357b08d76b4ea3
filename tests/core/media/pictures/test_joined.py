"""Pictures with another file behind them: refused as videos, noted as images; junk is no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnitrace_core.decoded_media import DecodedImage
from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.media import decode_part
from omnitrace_core.media.pictures.joined import file_behind
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media.test_animation import FORMS, animated, decode
from tests.core.media_files import write_clip

MANY = 100_000


@pytest.fixture(scope="module")
def followers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A file of each form, and an MP4 file."""
    files = {form: animated(form, 250) for form in FORMS}
    return files | {"MP4": write_clip(tmp_path_factory.mktemp("a") / "a.mp4", 4).read_bytes()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("between", [b"", b"\n", bytes(1), bytes(5000)])
def test_a_file_behind_an_animation_is_refused(
    form: str, between: bytes, followers: dict[str, bytes]
) -> None:
    first = animated(form, 250, loop=0)
    for name, second in followers.items():
        with pytest.raises(MediaCorrupt, match="as when files are joined") as caught:
            decode(first + between + second)
        assert f"another file ({name.replace('WEBP', 'WebP')})" in str(caught.value)
        assert f"at byte {len(first + between):,} of" in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "junk",
    [bytes(1), bytes(3000), b"\r\n", b"BM", b"\xff\xfb", b"junk that is no file at all"],
)
def test_junk_behind_an_animation_is_ignored(form: str, junk: bytes) -> None:
    data = animated(form, 250)
    assert file_behind(data, MANY) is None
    assert (decode(data + junk).frames == decode(data).frames).all()


@pytest.mark.parametrize("form", FORMS)
def test_as_an_image_the_first_is_read_and_the_other_noted(form: str) -> None:
    data = animated(form, 250)
    image = decode_part(Part("image", data=data + data), MediaOptions(), MediaRules())
    assert isinstance(image, DecodedImage)
    assert image.pixels.max() <= 2
    note = f"another file ({form.replace('WEBP', 'WebP')}) follows at byte {len(data):,}; not read"
    assert image.notes == ("first of 6 frames", note)


@pytest.mark.parametrize("form", FORMS)
def test_no_bytes_make_the_search_fail_or_run_on(form: str) -> None:
    data = animated(form, 250, n=2)
    for n in range(len(data)):
        assert file_behind(data[:n], MANY) is None
    assert file_behind(data * 2, 0) is None


def test_a_cut_gif_before_another_is_refused() -> None:
    """Pillow looks for the next frame, and goes on in the second file."""
    data = animated("GIF", 250)
    with pytest.raises(MediaCorrupt, match="another file"):
        decode(data[:-1] + data)


def test_real_files_end_where_they_end(tmp_path: Path) -> None:
    from tests.core.media_files import run_ffmpeg

    clip = write_clip(tmp_path / "a.mp4", 6)
    for name in ("a.gif", "a.webp", "a.apng"):
        run_ffmpeg("-i", clip, "-f", name[2:], tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert file_behind(data, MANY) is None
        found = file_behind(data + data, MANY)
        assert found is not None
        assert found[1] == len(data)
