"""Prompt positions get the unit that covers most of them."""

from __future__ import annotations

import numpy as np
import pytest

from omnitrace_core.backends import load_backend
from omnitrace_core.backends.base import Backend
from omnitrace_core.options import ModelOptions, UnitOptions
from omnitrace_core.positions import PositionKind, PromptMap
from omnitrace_core.records import (
    ReadySample,
    SourceUnit,
)
from omnitrace_core.units.assign import assign_units, empty_unit_notes, empty_units
from tests.core.ready_samples import image_with_grid, ready, sound


def audio_positions(edges: list[float]) -> PromptMap:
    n = len(edges) - 1
    return PromptMap(
        stream=np.full(n, PositionKind.AUDIO, np.int8),
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


def image_cells(backend: Backend, item: ReadySample) -> list[list[int]]:
    """The unit of each token of the image: one list per row of tokens."""
    prompt = backend.encode(item).prompt
    index = assign_units(prompt, item.units)[prompt.stream == PositionKind.IMAGE]
    n_columns = len(set(prompt.box[prompt.stream == PositionKind.IMAGE][:, 0].tolist()))
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
