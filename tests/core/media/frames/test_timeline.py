"""When frames are shown: rounding of containers, edit lists, the last frame, irregular rates."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from omnitrace_core.errors import MediaEmpty
from omnitrace_core.media.containers.declared import Window
from omnitrace_core.media.frames.sampling import find_stretch, pick_frames
from omnitrace_core.media.frames.timeline import Timeline, make_timeline

MS = Fraction(1, 1000)


def timeline(
    pts: list[int],
    last: int = 0,
    *,
    unit: Fraction = MS,
    rate: Fraction | None = None,
    origin_s: float = 0.0,
    window: Window | None = None,
) -> Timeline:
    return make_timeline(pts, last, unit, rate, origin_s, window or Window())


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30), Fraction(30000, 1001), Fraction(60)])
@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("begin_ms", [0, 67, 1500])
def test_a_constant_rate_is_freed_of_rounding(rate: Fraction, is_told: bool, begin_ms: int) -> None:
    exact = np.arange(200) / float(rate)
    stored = [begin_ms + round(float(time) * 1000) for time in exact]
    found = timeline(stored, rate=rate if is_told else None)
    np.testing.assert_allclose(found.starts_s, begin_ms / 1000 + exact, atol=0.002)
    np.testing.assert_allclose(np.diff(found.starts_s), np.diff(found.starts_s)[0], rtol=1e-9)
    assert found.is_steady
    assert found.end_s == pytest.approx(found.starts_s[-1] + 1 / float(rate), abs=1e-4)
    assert found.pts.tolist() == stored


def test_another_rate_than_the_container_tells_is_not_forced_on_the_frames() -> None:
    stored = [0, 100, 200, 500, 600]
    found = timeline(stored, rate=Fraction(10))
    np.testing.assert_allclose(found.starts_s, np.array(stored) / 1000)
    assert not found.is_steady
    # As long as most others.
    assert found.end_s == pytest.approx(0.7)


def test_the_last_frame_lasts_as_long_as_it_is_told() -> None:
    assert timeline([0, 100, 200], 5_000).end_s == pytest.approx(5.2)
    assert timeline([0], 5_000).end_s == pytest.approx(5.0)
    assert timeline([0], rate=Fraction(4)).end_s == pytest.approx(0.25)
    assert timeline([0]).end_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("window", "shown", "start_s", "end_s"),
    [
        (Window(), range(10), 0.0, 1.0),
        (Window(0.3, 0.7), range(3, 7), 0.3, 0.7),
        # In the middle of frames: the first is shown from then on, the last until then.
        (Window(0.35, 0.75), range(3, 8), 0.35, 0.75),
        (Window(0.35), range(3, 10), 0.35, 1.0),
        (Window(0.3005, 0.7005), range(3, 7), 0.3005, 0.7),
        (Window(2.0), range(0), None, None),
    ],
)
def test_only_what_the_window_shows(
    window: Window, shown: range, start_s: float | None, end_s: float | None
) -> None:
    found = timeline([100 * k for k in range(10)], 100, window=window)
    assert found.pts.tolist() == [100 * k for k in shown]
    if start_s is not None:
        assert found.starts_s[0] == pytest.approx(start_s, abs=1e-3)
        assert found.end_s == pytest.approx(end_s, abs=1e-3)
        assert found.is_steady


def test_the_clock_begins_at_its_origin() -> None:
    found = timeline([90_000 * 5, 90_000 * 6], unit=Fraction(1, 90_000), origin_s=4.5)
    np.testing.assert_allclose(found.starts_s, [0.5, 1.5])


def test_at_a_constant_rate_frames_are_evenly_spaced() -> None:
    found = timeline([100 * k for k in range(40)], 100)
    picks, times_s = pick_frames(found, 3, 30, 8)
    assert picks.tolist() == np.linspace(3, 30, 8).round().astype(int).tolist()
    np.testing.assert_allclose(times_s, picks / 10)


def test_a_picture_that_stands_still_is_sampled_again_with_the_time_of_the_sample() -> None:
    """Two seconds at 10 per second, then one picture for 8 s."""
    found = timeline([*range(0, 2_000, 100), 10_000], 100)
    picks, times_s = pick_frames(found, 0, 20, 11)
    assert picks.tolist() == [0, 10, 19, 19, 19, 19, 19, 19, 19, 19, 20]
    np.testing.assert_allclose(times_s, [0, 1, 1.9, 3, 4, 5, 6, 7, 8, 9, 10])
    assert (np.diff(times_s) > 0).all()


@pytest.mark.parametrize(
    ("stored", "note"),
    [
        ([*range(0, 3_000, 100)], ""),
        (
            [*range(0, 2_000, 100), *range(2_300, 5_000, 100)],
            "lack 3 of its frames, the first at 2.0",
        ),
        ([*range(0, 2_000, 100), *range(2_100, 5_000, 100), 5_100], "lack 2 of its frames"),
        # Irregular rates: a screen recording, a slow part, a picture that stands still.
        ([*range(0, 1_000, 100), *range(1_300, 5_000, 300)], ""),
        ([*range(0, 2_000, 100), 2_150, *range(2_400, 5_000, 100)], ""),
        ([0, 100, 5_000], ""),
    ],
)
def test_gaps_in_a_constant_rate_are_noted(stored: list[int], note: str) -> None:
    notes = " ".join(timeline(stored, 100).gap_notes())
    assert note in notes
    assert bool(note) == bool(notes)


STILL = [*range(0, 600, 33), *range(5_000, 6_000, 33)]  # from 0.594 to 5 s


@pytest.mark.parametrize(
    ("start", "end", "first_ms", "last_ms", "begin_s"),
    [
        (None, None, 0, 5_990, 0.0),
        (1.0, None, 594, 5_990, 1.0),
        (0.8, 3.0, 594, 594, 0.8),
        (None, 0.62, 0, 594, 0.0),
        (5.0, 5.5, 5_000, 5_495, 5.0),
    ],
)
def test_a_picture_that_stands_still_is_in_every_stretch_in_which_it_is_shown(
    start: float | None, end: float | None, first_ms: int, last_ms: int, begin_s: float
) -> None:
    found = timeline(STILL)
    first, last, begin = find_stretch(found, start, end, "x")
    assert (STILL[first], STILL[last]) == (first_ms, last_ms)
    assert begin == pytest.approx(begin_s)
    picks, times_s = pick_frames(found, first, last, 4, begin)
    assert times_s[0] == pytest.approx(begin_s)
    assert picks[0] == first


def test_slides_are_shown_between_their_beginnings() -> None:
    slides = timeline([0, 1_000, 2_000], 1_000)
    assert find_stretch(slides, 0.2, 0.9, "x") == (0, 0, 0.2)
    assert find_stretch(slides, 0.2, 1.9, "x") == pytest.approx((1, 1, 1.0))
    assert find_stretch(slides, 2.5, None, "x") == (2, 2, 2.5)
    for start in (3.0, 7.0):
        with pytest.raises(MediaEmpty, match="no frame between"):
            find_stretch(slides, start, None, "x")
