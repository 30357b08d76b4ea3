"""What counts as decoding, as fetching, and as neither; by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omnitrace_core.media.progress.media_times import (
    MediaTimes,
    collecting_times,
    decoding,
    fetching,
    importing,
    set_clock,
)

now_s = 0.0


def clock() -> float:
    return now_s


def pass_time(seconds: float) -> None:
    global now_s
    now_s += seconds


@pytest.fixture
def moved_clock() -> Iterator[None]:
    set_clock(clock)
    yield
    set_clock()


@pytest.mark.usefixtures("moved_clock")
def test_fetching_and_imports_are_no_decoding() -> None:
    with collecting_times() as times:
        pass_time(1000)  # outside: a wait for the turn
        for _ in range(2):
            with decoding():
                pass_time(1)
                with fetching():
                    pass_time(20)
                    with importing():
                        pass_time(300)
                with importing():
                    pass_time(4000)
                    with fetching():
                        pass_time(50_000)
                pass_time(2)
    assert times == MediaTimes(decode_s=6, fetch_s=100_040)


@pytest.mark.usefixtures("moved_clock")
def test_times_outside_a_collection_are_dropped() -> None:
    with decoding():
        pass_time(1)
    with pytest.raises(ZeroDivisionError), collecting_times() as times, decoding():
        pass_time(1 / 0)
    assert times == MediaTimes()
    with collecting_times() as times, decoding():
        pass_time(3)
    assert times == MediaTimes(decode_s=3)
