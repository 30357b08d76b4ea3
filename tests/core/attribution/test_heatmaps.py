"""Heat maps place the weight on the right patches, and keep its sum."""

from __future__ import annotations

import numpy as np
import pytest

from omnitrace_core.attribution.curation import pos_weights, span_means
from omnitrace_core.attribution.heatmaps import HeatMap, pack, span_heatmaps, unpack
from omnitrace_core.backends import load_backend
from omnitrace_core.backends.base import Backend, EncodedSample
from omnitrace_core.decoded_media import DecodedImage, DecodedVideo
from omnitrace_core.errors import TraceError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.positions import PositionKind, PromptMap
from omnitrace_core.records import Float32, Segmentation, Span, TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from tests.core.ready_samples import image, ready, sound, video

Box = tuple[float, float, float, float]
ONE_NOUN = Segmentation((Span(0, "x", 0, 1, 0, 1),), ("NOUN",))


def spans(*ends: int, pos: tuple[str, ...]) -> Segmentation:
    starts = (0, *ends[:-1])
    made = (Span(i, "x", 0, 1, a, b) for i, (a, b) in enumerate(zip(starts, ends, strict=True)))
    return Segmentation(tuple(made), pos)


def picture(boxes: list[Box], part: int = 0) -> PromptMap:
    """One image of these boxes between two tokens of text."""
    n = len(boxes)
    nothing = (0.0, 0.0, 0.0, 0.0)
    return PromptMap(
        stream=np.array([PositionKind.NONE, *[PositionKind.IMAGE] * n, PositionKind.TEXT], np.int8),
        part=np.array([-1, *[part] * n, part + 1], np.int32),
        lo=np.zeros(n + 2),
        hi=np.zeros(n + 2),
        box=np.array([nothing, *boxes, nothing], np.float32),
    )


def tiles(rows: int, columns: int, width: float, height: float) -> list[Box]:
    wide, high = width / columns, height / rows
    return [
        (c * wide, r * high, (c + 1) * wide, (r + 1) * high)
        for r in range(rows)
        for c in range(columns)
    ]


def hot(heat: HeatMap) -> Box:
    """Pixels of the original under the hottest patch."""
    rows, columns = heat.values.shape
    r, c = divmod(int(heat.values.argmax()), columns)
    return (
        c * heat.width / columns,
        r * heat.height / rows,
        (c + 1) * heat.width / columns,
        (r + 1) * heat.height / rows,
    )


def covers(outer: Box, inner: Box) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


@pytest.fixture(scope="module")
def backend(tiny_model: str) -> Backend:
    return load_backend(ModelOptions(path=tiny_model, device="cpu"))


def weight_on_what_differs(
    one: EncodedSample, other: EncodedSample, key: str, stream: int
) -> Float32:
    """A row with all its weight on the tokens whose pixels differ between two prompts.

    Which tokens these are is read from the model's own inputs: four patches make one token.
    """
    patches = [item.features[key].numpy() for item in (one, other)]
    differs = (patches[0] != patches[1]).any(axis=1).reshape(-1, 4).any(axis=1)
    row = np.zeros((1, one.n_prompt), np.float32)
    where = np.flatnonzero(one.prompt.stream == stream)
    assert where.shape == differs.shape
    row[0, where[differs]] = 1 / differs.sum()
    return row


def test_a_rectangle_of_an_image_is_hot(backend: Backend) -> None:
    rectangle = (330.0, 250.0, 410.0, 350.0)  # in the original's 640 x 480 pixels
    pixels = np.zeros((112, 168, 3), np.uint8)
    painted = pixels.copy()
    painted[int(250 * 112 / 480) + 1 : int(350 * 112 / 480), int(330 * 0.2625) + 1 : 107] = 255
    one, other = (
        backend.encode(ready(["Look.", DecodedImage(p, 640, 480, "x"), image(2), "What?"]))
        for p in (pixels, painted)
    )
    row = weight_on_what_differs(one, other, "pixel_values", PositionKind.IMAGE)
    heat, beside = span_heatmaps(row, one.prompt, ONE_NOUN)
    assert (heat.part_index, heat.modality, heat.step, heat.start_s) == (1, "image", 0, None)
    assert (heat.width, heat.height, heat.values.shape) == (640, 480, (4, 6))
    assert covers(hot(heat), rectangle)
    assert heat.values.max() == heat.values.sum() == 1.0
    assert beside.part_index == 2
    assert not beside.values.any()


@pytest.mark.parametrize("with_sound", [True, False])
def test_a_rectangle_of_a_frame_is_hot_at_its_time(backend: Backend, with_sound: bool) -> None:
    rectangle, moment = (200.0, 150.0, 300.0, 220.0), 2.3  # in 320 x 240 pixels, at 2 fps

    def clip(painted: bool) -> DecodedVideo:
        frames = np.zeros((8, 56, 56, 3), np.uint8)
        if painted:
            frames[4, 36:51, 36:52] = 255  # the frame shown from 2.0 s to 2.5 s
        return DecodedVideo(
            frames=frames,
            frame_times_s=np.arange(8, dtype=np.float64) * 0.5,
            fps=2.0,
            width=320,
            height=240,
            start_s=0.0,
            end_s=4.0,
            duration_s=4.0,
            sound=sound(1, 4.0) if with_sound else None,
            sha256="x",
        )

    one, other = (backend.encode(ready([clip(painted), "What?"])) for painted in (False, True))
    row = weight_on_what_differs(one, other, "pixel_values_videos", PositionKind.FRAMES)
    heats = span_heatmaps(row, one.prompt, ONE_NOUN)
    assert [(heat.step, heat.start_s, heat.end_s) for heat in heats] == [
        (0, 0.0, 1.0),
        (1, 1.0, 2.0),
        (2, 2.0, 3.0),
        (3, 3.0, 4.0),
    ]
    assert {(heat.modality, heat.part_index, heat.values.shape) for heat in heats} == {
        ("video", 0, (2, 2))
    }
    (lit,) = [heat for heat in heats if heat.values.any()]
    assert lit.start_s is not None
    assert lit.end_s is not None
    assert lit.start_s <= moment < lit.end_s
    assert covers(hot(lit), rectangle)
    assert lit.values.sum() == 1.0


def test_maps_of_a_real_trace_hold_the_mass_of_their_units(tiny_model: str) -> None:
    tracer = BatchTracer(
        ModelOptions(path=tiny_model, device="cpu"),
        DecodeOptions(max_new_tokens=5),
        TraceOptions(heatmaps=True),
    )
    item = ready(["All.", image(1, 112, 168), sound(2, 1.0), video(3), "Tell me."])
    (trace,) = tracer.trace([item])
    assert isinstance(trace, TokenTrace)
    assert trace.positions is not None
    n = len(trace.token_ids)
    assert n > 2
    segmentation = spans(2, n, pos=("DET", "NOUN", *["VERB"] * (n - 2)))
    rows = trace.positions.rows["attmean"]
    heats = span_heatmaps(rows, trace.positions.prompt, segmentation)
    weights = pos_weights(segmentation.pos)
    masses = span_means(trace.folds["attmean"].mass, weights, segmentation.spans)
    seen = [unit.unit_id for unit in item.units if unit.kind in ("image", "video_bin")]
    assert [heat.span_index for heat in heats] == [0] * len(seen) + [1] * len(seen)
    totals = [float(heat.values.sum()) for heat in heats]
    np.testing.assert_allclose(totals, masses[:, seen].ravel(), rtol=1e-5)
    assert min(totals) > 0


@pytest.mark.parametrize(
    ("rows", "columns", "width", "height"),
    [(1, 1, 640, 480), (7, 11, 640, 480), (128, 96, 4031, 3023), (2, 2, 1, 1), (3, 200, 9999, 7)],
)
def test_a_regular_grid_is_drawn_unchanged(
    rows: int, columns: int, width: int, height: int
) -> None:
    prompt = picture(tiles(rows, columns, width, height))
    values = np.random.default_rng(0).random((3, rows * columns + 2), dtype=np.float32)
    segmentation = spans(1, 3, pos=("NOUN", "VERB", "ADP"))
    first, second = span_heatmaps(values, prompt, segmentation)
    means = span_means(values, pos_weights(segmentation.pos), segmentation.spans)[:, 1:-1]
    assert (first.width, first.height) == (width, height)
    assert first.values.dtype == np.float32
    np.testing.assert_array_equal(first.values.ravel(), means[0].astype(np.float32))
    np.testing.assert_array_equal(second.values.ravel(), means[1].astype(np.float32))


def test_an_overview_is_spread_over_the_tiles_below_it() -> None:
    boxes = [*tiles(2, 2, 400, 200), *tiles(4, 4, 400, 200)]
    row = np.arange(22, dtype=np.float32)[None]
    (heat,) = span_heatmaps(row, picture(boxes), ONE_NOUN)
    overview, fine = row[0, 1:5].reshape(2, 2), row[0, 5:21].reshape(4, 4)
    np.testing.assert_array_equal(heat.values, fine + overview.repeat(2, 0).repeat(2, 1) / 4)


def slow_map(boxes: list[Box], values: Float32, rows: int, columns: int) -> Float32:
    width, height = max(box[2] for box in boxes), max(box[3] for box in boxes)
    heat = np.zeros((rows, columns))
    for (x0, y0, x1, y1), value in zip(boxes, values.tolist(), strict=True):
        for r in range(rows):
            for c in range(columns):
                wide = min(x1, (c + 1) * width / columns) - max(x0, c * width / columns)
                high = min(y1, (r + 1) * height / rows) - max(y0, r * height / rows)
                if wide > 0 and high > 0:
                    heat[r, c] += value * wide * high / ((x1 - x0) * (y1 - y0))
    return heat.astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_any_boxes_are_spread_by_area(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 500, (40, 2))
    sizes = random.uniform(30, 200, (40, 2))
    boxes = [tuple(map(float, box)) for box in np.hstack([corners, corners + sizes])]
    prompt = picture(boxes)  # type: ignore[arg-type]
    row = random.random((1, 42), dtype=np.float32)
    (heat,) = span_heatmaps(row, prompt, ONE_NOUN)
    rows, columns = heat.values.shape
    assert rows == round(max(box[3] for box in boxes) / sizes[:, 1].min())
    assert columns == round(max(box[2] for box in boxes) / sizes[:, 0].min())
    expected = slow_map(boxes, row[0, 1:-1], rows, columns)  # type: ignore[arg-type]
    np.testing.assert_allclose(heat.values, expected, atol=2e-3)  # edges snap to grid lines
    np.testing.assert_allclose(heat.values.sum(), row[0, 1:-1].sum(), rtol=1e-5)


def test_weights_are_those_of_the_words_unless_switched_off() -> None:
    prompt = picture(tiles(1, 2, 20, 10))
    rows = np.array([[0, 0.5, 0, 0], [0, 0, 0.25, 0]], np.float32)
    segmentation = spans(2, pos=("NOUN", "PUNCT"))
    (weighted,) = span_heatmaps(rows, prompt, segmentation)
    (plain,) = span_heatmaps(rows, prompt, segmentation, pos_weighting=False)
    assert weighted.values.tolist() == [[0.5, 0.0]]
    assert plain.values.tolist() == [[0.25, 0.125]]


def test_the_memory_layout_of_the_rows_changes_no_bit() -> None:
    prompt = picture(tiles(5, 7, 640, 480))
    rows = np.random.default_rng(3).random((30, 37), dtype=np.float32)
    segmentation = spans(30, pos=("NOUN", "ADJ", "DET") * 10)
    (one,) = span_heatmaps(rows, prompt, segmentation)
    (other,) = span_heatmaps(np.asfortranarray(rows), prompt, segmentation)
    assert one.values.tobytes() == other.values.tobytes()


def test_without_pictures_there_is_no_map() -> None:
    text = PromptMap(
        stream=np.array([PositionKind.NONE, PositionKind.TEXT], np.int8),
        part=np.array([-1, 0], np.int32),
        lo=np.zeros(2),
        hi=np.ones(2),
        box=np.zeros((2, 4), np.float32),
    )
    assert span_heatmaps(np.ones((1, 2), np.float32), text, ONE_NOUN) == ()
    prompt = picture(tiles(2, 2, 10, 10))
    assert span_heatmaps(np.ones((0, 6), np.float32), prompt, Segmentation((), ())) == ()


def test_mismatched_inputs_are_refused() -> None:
    prompt = picture(tiles(2, 2, 10, 10))
    with pytest.raises(TraceError, match=r"rows are \[1, 5\] .* 1 tagged tokens and 6 prompt"):
        span_heatmaps(np.ones((1, 5), np.float32), prompt, ONE_NOUN)
    with pytest.raises(TraceError, match=r"rows are \[2, 6\]"):
        span_heatmaps(np.ones((2, 6), np.float32), prompt, ONE_NOUN)


@pytest.mark.parametrize(
    "box", [(5, 0, 5, 10), (0, 10, 10, 0), (-1, 0, 5, 10), (0, 0, float("nan"), 10)]
)
def test_an_invalid_box_is_refused(box: Box) -> None:
    prompt = picture([(0, 0, 10, 10), box], part=3)
    with pytest.raises(TraceError, match=r"part 3: .* the box \[.*\], which is not a valid box"):
        span_heatmaps(np.ones((1, 4), np.float32), prompt, ONE_NOUN)


def test_too_many_patches_are_refused() -> None:
    prompt = picture([(0, 0, 640, 480), (0, 0, 0.1, 0.1)])
    with pytest.raises(TraceError, match=r"needs 4800 x 6400 patches on 640 x 480 pixels"):
        span_heatmaps(np.ones((1, 4), np.float32), prompt, ONE_NOUN)


def test_packed_maps_are_within_half_a_level() -> None:
    values = np.random.default_rng(1).random((7, 11), dtype=np.float32) ** 4
    packed, scale = pack(values)
    assert (packed.dtype, packed.shape, packed.max()) == (np.uint8, (77,), 255)
    assert scale == pytest.approx(float(values.max()) / 255)
    for stored in (packed, packed.tobytes(), memoryview(packed.tobytes())):
        back = unpack(stored, scale, 7, 11)
        assert (back.dtype, back.shape) == (np.float32, (7, 11))
        assert np.abs(back - values).max() <= scale / 2 * (1 + 1e-5)
        assert back.max() == pytest.approx(values.max())


def test_an_empty_map_packs_to_zeros() -> None:
    packed, scale = pack(np.zeros((2, 3), np.float32))
    assert (packed.tolist(), scale) == ([0] * 6, 0.0)
    assert not unpack(packed, scale, 2, 3).any()


def test_a_faint_map_packs_like_a_strong_one() -> None:
    values = np.array([[1e-38, 5e-39, 0.0]], np.float32)
    packed, scale = pack(values)
    assert packed.tolist() == [255, 128, 0]
    assert unpack(packed, scale, 1, 3)[0, 0] == values[0, 0]


def test_a_packed_map_of_another_size_is_refused() -> None:
    with pytest.raises(TraceError, match="packed heat map of 6 bytes does not have 2 x 4 patches"):
        unpack(bytes(6), 1.0, 2, 4)
