"""Units lie inside their media, tile them, and get the positions that lie in them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from omnitrace_core.backends import load_backend
from omnitrace_core.backends.base import Backend
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import ModelOptions, UnitOptions
from omnitrace_core.positions import PromptMap, Stream
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import (
    DecodedMedia,
    Message,
    Part,
    ReadySample,
    Sample,
    SourceUnit,
    SpeechChunk,
)
from omnitrace_core.units.cut import assign_units, empty_unit_notes, empty_units, time_bins
from tests.core.ready_samples import image, ready, sound, video


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


def test_chunks_replace_bins_except_without_speech() -> None:
    sample = Sample("a", (Message("user", (Part("audio", uri="x"), Part("audio", uri="y"))),))
    reader = SampleReader(ReadingOptions(MediaRules(), units=UnitOptions(audio="chunks")))
    speech = {0: (SpeechChunk(0.5, 1.1, "hello"), SpeechChunk(1.6, 2.0, "there")), 1: ()}
    item = reader.make_ready(sample, {0: sound(1, 3.0), 1: sound(2, 2.0)}, speech)
    assert [(unit.kind, unit.start_s, unit.transcript) for unit in item.units] == [
        ("audio_chunk", 0.5, "hello"),
        ("audio_chunk", 1.6, "there"),
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
    streams = np.array([Stream.IMAGE, Stream.FRAMES, Stream.SOUND], np.int8)
    prompt = PromptMap(
        stream=streams,
        part=np.array([0, 1, 1], np.int32),
        lo=np.array([0.0, 1.0, 1.0]),
        hi=np.array([0.0, 2.0, 1.04]),
        box=np.array([[0, 0, 10, 10], [0] * 4, [0] * 4], np.float32),
    )
    assert assign_units(prompt, item.units).tolist() == [0, 1, 1]


def audio_positions(edges: list[float]) -> PromptMap:
    n = len(edges) - 1
    return PromptMap(
        stream=np.full(n, Stream.AUDIO, np.int8),
        part=np.zeros(n, np.int32),
        lo=np.array(edges[:-1]),
        hi=np.array(edges[1:]),
        box=np.zeros((n, 4), np.float32),
    )


def test_a_position_goes_to_the_unit_that_covers_most_of_it() -> None:
    units = [
        SourceUnit(0, "audio_chunk", "audio", 0, start_s=0.0, end_s=1.0),
        SourceUnit(1, "audio_chunk", "audio", 0, start_s=1.0, end_s=2.0),
        SourceUnit(2, "audio_chunk", "audio", 0, start_s=3.0, end_s=4.0),
        SourceUnit(3, "audio_bin", "audio", 1, start_s=0.0, end_s=9.0),
    ]
    prompt = audio_positions([0.0, 0.5, 0.9, 1.4, 1.6, 2.1, 2.9, 3.2])
    assert assign_units(prompt, units).tolist() == [0, 0, 1, 1, 1, -1, 2]


def test_ties_go_to_the_lower_unit() -> None:
    units = [
        SourceUnit(0, "audio_bin", "audio", 0, start_s=0.0, end_s=1.0),
        SourceUnit(1, "audio_bin", "audio", 0, start_s=1.0, end_s=2.0),
    ]
    assert assign_units(audio_positions([0.5, 1.5]), units).tolist() == [0]


@pytest.fixture(scope="module")
def backend(tiny_model: str) -> Backend:
    return load_backend(ModelOptions(path=tiny_model, device="cpu"))


def image_with_grid(rows: int, columns: int, height: int = 112, width: int = 168) -> ReadySample:
    """An image of 640 x 480 (by default 4 x 6 tokens) cut into cells, and a question."""
    options = UnitOptions(image="grid", grid=(rows, columns))
    return ready([image(1, height, width), "What?"], units=options)


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


def image_cells(backend: Backend, item: ReadySample) -> list[list[int]]:
    """The unit of each token of the image: one list per row of tokens."""
    prompt = backend.encode(item).prompt
    index = assign_units(prompt, item.units)[prompt.stream == Stream.IMAGE]
    n_columns = len(set(prompt.box[prompt.stream == Stream.IMAGE][:, 0].tolist()))
    return index.reshape(-1, n_columns).tolist()


def test_tokens_go_to_the_cell_that_covers_most_of_them(backend: Backend) -> None:
    item = image_with_grid(2, 3)
    assert image_cells(backend, item) == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert backend.encode(item).notes == ()


def test_halved_tokens_go_to_the_lower_cell_on_every_row(backend: Backend) -> None:
    # 6 columns of tokens, 4 of cells: the second and the fifth token lie half in each of two cells.
    top, *_, bottom = image_cells(backend, image_with_grid(4, 4))
    assert top == [0, 0, 1, 2, 2, 3]
    assert bottom == [12, 12, 13, 14, 14, 15]


def test_cells_finer_than_tokens_are_noted(backend: Backend) -> None:
    item = image_with_grid(3, 3, height=56, width=56)
    assert image_cells(backend, item) == [[0, 2], [6, 8]]
    encoded = backend.encode(item)
    index = assign_units(encoded.prompt, item.units)
    assert empty_units(index, item.units) == [1, 3, 4, 5, 7]
    assert empty_unit_notes(index, item.units) == encoded.notes
    assert encoded.notes == (
        "part 0: 5 of 9 units (image_cell) hold no token and can never be a source; "
        "units.grid is finer than the tokens of this image",
    )


def test_bins_shorter_than_tokens_are_noted(backend: Backend) -> None:
    item = ready([sound(1, 1.0), "And?"], units=UnitOptions(bin_s=0.02))
    (note,) = backend.encode(item).notes
    assert note.startswith("part 0: 23 of 48 units (audio_bin) hold no token")
    assert note.endswith("; they are shorter than a token")


def test_positions_of_several_blocks() -> None:
    """Compared with the unit in which the middle of each position lies."""
    edges = np.arange(0, 200.02, 0.04)
    prompt = audio_positions(edges.tolist())
    units = [
        SourceUnit(j, "audio_bin", "audio", 0, start_s=j * 0.7, end_s=(j + 1) * 0.7)
        for j in range(250)
    ]
    middles = (prompt.lo + prompt.hi) / 2
    expected = np.where(middles < 175, np.minimum(middles // 0.7, 249), -1)
    found = assign_units(prompt, units)
    clear = np.abs(middles / 0.7 - np.round(middles / 0.7)) > 0.03
    np.testing.assert_array_equal(found[clear], expected[clear])
