"""Units lie inside their media and tile them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import UnitOptions
from omnitrace_core.positions import PositionKind, PromptMap
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Message, Part, Sample, SpeechChunk
from omnitrace_core.units.assign import assign_units
from omnitrace_core.units.sound import time_bins
from tests.core.ready_samples import image, image_with_grid, ready, sound, video


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.0, 3.0, [(0, 1), (1, 2), (2, 3)]),
        (0.0, 2.5, [(0, 1), (1, 2), (2, 2.5)]),
        (0.0, 2.01, [(0, 1), (1, 2.01)]),  # a remainder below one audio token joins
        (0.0, 0.3, [(0, 0.3)]),
        (4.0, 5.5, [(4, 5), (5, 5.5)]),  # a clip that starts later in its file
    ],
)
def test_time_bins(start: float, end: float, expected: list[tuple[float, float]]) -> None:
    np.testing.assert_allclose(time_bins(start, end, 1.0), expected)


def test_units_are_in_reading_order_with_their_ids() -> None:
    item = ready(["Read this.", video(1), "A. one\nB. two", sound(2, 1.2)])
    assert [unit.unit_id for unit in item.units] == list(range(len(item.units)))
    assert [unit.kind for unit in item.units] == (
        ["sentence"] + ["video_bin"] * 4 + ["sound_bin"] * 4 + ["option"] * 2 + ["audio_bin"] * 2
    )
    for unit in item.units:
        if unit.char_start is not None:
            text = item.sample.parts[unit.part_index].text
            assert text[unit.char_start : unit.char_end] == unit.text


def test_an_instruction_is_one_unit() -> None:
    parts = (Part("text", text=" Answer. Be brief. ", evidence=False), Part("text", text="Why?"))
    reader = SampleReader(ReadingOptions(MediaRules()))
    item = reader.make_ready(Sample("a", (Message("user", parts),)), {}, {})
    assert [(unit.kind, unit.text) for unit in item.units] == [
        ("instruction", "Answer. Be brief."),
        ("sentence", "Why?"),
    ]


def test_bins_fill_the_gaps_between_chunks() -> None:
    sample = Sample("a", (Message("user", (Part("audio", uri="x"), Part("audio", uri="y"))),))
    reader = SampleReader(ReadingOptions(MediaRules(), units=UnitOptions(audio="chunks")))
    speech = {0: (SpeechChunk(0.5, 1.1, "hello"), SpeechChunk(1.6, 2.0, "there")), 1: ()}
    item = reader.make_ready(sample, {0: sound(1, 3.0), 1: sound(2, 2.0)}, speech)
    assert [(unit.kind, unit.start_s, unit.transcript) for unit in item.units] == [
        ("audio_bin", 0.0, ""),
        ("audio_chunk", 0.5, "hello"),
        ("audio_bin", 1.1, ""),
        ("audio_chunk", 1.6, "there"),
        ("audio_bin", 2.0, ""),
        ("audio_bin", 0.0, ""),
        ("audio_bin", 1.0, ""),
    ]
    assert item.notes == ("part 1: no speech found, its sound is cut into time bins",)


def test_media_of_an_instruction_are_one_unit() -> None:
    parts = (
        Part("image", uri="x", evidence=False),
        Part("video", uri="y", evidence=False),
        Part("text", text="And this?"),
    )
    reader = SampleReader(ReadingOptions(MediaRules(), units=UnitOptions(image="grid")))
    media: dict[int, DecodedMedia] = {0: image(1), 1: video(2)}
    item = reader.make_ready(Sample("a", (Message("user", parts),)), media, {})
    assert [(unit.kind, unit.modality) for unit in item.units] == [
        ("instruction", "image"),
        ("instruction", "video"),
        ("sentence", "text"),
    ]
    streams = np.array([PositionKind.IMAGE, PositionKind.FRAMES, PositionKind.SOUND], np.int8)
    prompt = PromptMap(
        stream=streams,
        part=np.array([0, 1, 1], np.int32),
        lo=np.array([0.0, 1.0, 1.0]),
        hi=np.array([0.0, 2.0, 1.04]),
        box=np.array([[0, 0, 10, 10], [0] * 4, [0] * 4], np.float32),
    )
    assert assign_units(prompt, item.units).tolist() == [0, 1, 1]


@pytest.mark.parametrize("grid", [(1, 1), (3, 3), (4, 8), (7, 11), (13, 9)])
def test_cells_tile_the_image_exactly(grid: tuple[int, int]) -> None:
    boxes = [unit.box for unit in image_with_grid(*grid).units if unit.box is not None]
    assert len(boxes) == grid[0] * grid[1]
    columns = sorted({(x0, x1) for x0, _, x1, _ in boxes})
    rows = sorted({(y0, y1) for _, y0, _, y1 in boxes})
    for strips, n, length in ((columns, grid[1], 640), (rows, grid[0], 480)):
        assert len(strips) == n
        assert (strips[0][0], strips[-1][1]) == (0, length)
        assert all(left[1] == right[0] for left, right in pairwise(strips))
    assert boxes == [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]
