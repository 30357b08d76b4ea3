"""Options that a medium does not follow are noted, or refused."""

from __future__ import annotations

import pytest
from PIL import Image

from omnitrace_core.errors import InvalidSample
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Frame, Part, PartOptions
from tests.core.media_files import audio_bytes, beep, image_bytes, write_clip

RULES = MediaRules()
PNG = image_bytes(Image.new("RGB", (112, 84)))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Part:
    """Of 5 frames, with one sound track."""
    path = tmp_path_factory.mktemp("notes") / "a.mp4"
    return Part("video", uri=str(write_clip(path, 5, sound=beep(0.5, [0]))))


def notes(
    part: Part, requested: PartOptions, run: MediaOptions | None = None, *, want_sound: bool = True
) -> tuple[str, ...]:
    part = Part(part.type, uri=part.uri, data=part.data, frames=part.frames, options=requested)
    return decode_part(part, run or MediaOptions(), RULES, want_sound=want_sound).notes


def test_options_of_other_media_are_noted(clip: Part) -> None:
    image, sound = Part("image", data=PNG), Part("audio", data=audio_bytes(beep(1, [0]), 16_000))
    mixed = PartOptions(fps=2.0, max_pixels=10_000, audio_end=0.4)
    assert notes(image, mixed) == ("fps, audio_end have no effect on an image",)
    assert "fps, max_pixels have no effect on an audio part" in notes(sound, mixed)
    assert "audio_end has no effect on a video" in notes(clip, mixed)
    used = PartOptions(fps=2.0, max_pixels=10_000, video_start=0.0, audio_track=0)
    assert not [note for note in notes(clip, used) if "effect" in note]
    assert notes(image, PartOptions(min_pixels=3_000, max_pixels=10_000)) == ()


def test_an_image_has_no_sound_track_to_choose() -> None:
    with pytest.raises(InvalidSample, match="audio_track=0, but the file has 0 sound tracks"):
        notes(Part("image", data=PNG), PartOptions(audio_track=0))


def test_a_sound_track_is_chosen_in_vain_without_sound(clip: Part) -> None:
    chosen, note = PartOptions(audio_track=0), "audio_track=0 has no effect: sounds of videos are"
    for run, want_sound in ((MediaOptions(video_sound=False), True), (MediaOptions(), False)):
        usual = notes(clip, PartOptions(), run, want_sound=want_sound)
        [found] = set(notes(clip, chosen, run, want_sound=want_sound)) - set(usual)
        assert found.startswith(note)
        assert not any("audio_track" in text for text in usual)
    assert not any("audio_track" in text for text in notes(clip, chosen))


def test_other_numbers_of_frames_than_asked_for_are_noted(clip: Part) -> None:
    pictures = Part("video", frames=tuple(Frame(data=PNG) for _ in range(3)))
    assert "min_frames=8, but the model gets 4 frames" in notes(pictures, PartOptions(min_frames=8))
    most = "max_frames=1, but the model gets 2 frames, a multiple of 2"
    assert most in notes(pictures, PartOptions(max_frames=1))
    assert most in notes(clip, PartOptions(max_frames=1, min_frames=1))
    assert "min_frames=8, but the model gets 4 frames" in notes(clip, PartOptions(min_frames=8))
    fine = PartOptions(min_frames=2, max_frames=4)
    assert not [note for part in (clip, pictures) for note in notes(part, fine) if "model" in note]
