"""Extents hold what cutting units needs of decoded media."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedMedia, DecodedVideo
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import UnitOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Message, Part, Sample
from omnitrace_core.text.sentences import TextSpan
from omnitrace_core.units.cut import build_units
from omnitrace_core.units.extents import Extent, extent_of, frame_bins, sound_end_s
from tests.core.ready_samples import image, sound, video


def variable_rate_video() -> DecodedVideo:
    """A video of variable frame rate, from a clip that starts late in its file."""
    frames = np.zeros((6, 28, 28, 3), np.uint8)
    times = np.array([0.2, 0.7, 1.5, 1.6, 2.9, 3.0])
    return DecodedVideo(frames, times, 2.0, 320, 240, 0.1, 3.3, 9.0, None, "x")


def one_unit(text: str) -> list[TextSpan]:
    return [TextSpan(0, len(text), "text_part")]


def test_frame_bins_follow_the_times_of_frames() -> None:
    assert frame_bins(variable_rate_video(), 2) == [(0.1, 1.5), (1.5, 2.9), (2.9, 3.3)]


def test_extent_of_an_image_is_its_original_size() -> None:
    assert extent_of(image(1), MediaRules()) == Extent("image", 640, 480, 0.0, 0.0, (), None)


def test_extent_of_a_sound_ends_with_its_waveform() -> None:
    clip = sound(1, 2.5, start_s=4.0)
    assert sound_end_s(clip) == 6.5
    assert extent_of(clip, MediaRules()) == Extent("audio", 0, 0, 4.0, 6.5, (), (4.0, 6.5))


def test_extent_of_a_video_has_its_steps_and_its_sound() -> None:
    extent = extent_of(variable_rate_video(), MediaRules())
    assert extent == Extent("video", 320, 240, 0.1, 3.3, (0.1, 1.5, 2.9, 3.3), None)
    late = dataclasses.replace(variable_rate_video(), sound=sound(2, 2.75, start_s=0.5))
    assert extent_of(late, MediaRules()).sound == (0.5, 3.25)
    three = extent_of(variable_rate_video(), MediaRules(frame_factor=3))
    assert three.step_edges_s == (0.1, 1.6, 3.3)


@pytest.mark.parametrize("units", [UnitOptions(), UnitOptions(image="grid", bin_s=0.7)])
@pytest.mark.parametrize("evidence", [True, False])
def test_units_cut_from_a_stored_extent_are_the_same(units: UnitOptions, evidence: bool) -> None:
    media: dict[int, DecodedMedia] = {
        0: image(1),
        1: sound(2, 2.1),
        2: video(3),
        3: variable_rate_video(),
    }
    types = ("image", "audio", "video", "video")
    parts = tuple(Part(kind, uri="x", evidence=evidence) for kind in types)  # type: ignore[arg-type]
    sample = Sample("a", (Message("user", (*parts, Part("text", text="Why?"))),))
    reader = SampleReader(ReadingOptions(MediaRules(), units=units))
    extents = {index: extent_of(item, reader.options.rules) for index, item in media.items()}
    stored = json.loads(json.dumps([dataclasses.asdict(item) for item in extents.values()]))
    restored = {
        index: Extent(
            **{
                **row,
                "step_edges_s": tuple(row["step_edges_s"]),
                "sound": row["sound"] and tuple(row["sound"]),
            }
        )
        for index, row in enumerate(stored)
    }
    assert restored == extents
    cut, notes = build_units(sample, restored, {}, one_unit, units)
    assert [unit for unit in cut if unit.modality != "text"] == [
        unit for unit in reader.make_ready(sample, media, {}).units if unit.modality != "text"
    ]
    assert notes == ()
