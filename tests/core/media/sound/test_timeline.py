"""The timeline of a sound: where blocks go whose times jitter, and where packets are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from omnitrace_core.media.containers.declared import Window
from omnitrace_core.media.sound.timeline import Timeline
from omnitrace_core.media.sound.waveform import Interval, Recorder

RATE = 16_000
N = 320  # samples of a block: 20 ms
BLOCK_S = N / RATE


def place(starts_s: Sequence[float], tick_s: float = 0.001) -> tuple[np.ndarray, list[str]]:
    """Blocks whose samples are all k + 1 for block k, each at a time; and notes."""
    recorder = Recorder(RATE, RATE, Interval(), "a", lambda _: None)
    timeline = Timeline(RATE, tick_s, Window(), math.inf if not starts_s else 1e4, recorder, "a")
    for k, start_s in enumerate(starts_s):
        timeline.add(np.full((1, N), (k + 1) / 1000, np.float32), start_s, start_s + BLOCK_S)
    timeline.close()
    waveform, notes = recorder.waveform()
    return np.round(waveform * 1000).astype(int), timeline.notes() + notes


def in_turn(first: int, end: int) -> np.ndarray:
    """The samples of blocks [first, end) without gaps."""
    return np.repeat(np.arange(first, end) + 1, N)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("jitter_s", [0.005, 0.012, 0.025])
def test_jitter_that_sums_to_nothing_neither_cuts_nor_inserts(seed: int, jitter_s: float) -> None:
    jitter_of = np.random.default_rng(seed).uniform(-jitter_s, jitter_s, 300)
    jitter_of[0] = 0
    placed, notes = place((np.arange(300) * BLOCK_S + jitter_of).tolist())
    np.testing.assert_array_equal(placed, in_turn(0, 300))
    assert notes == []


@pytest.mark.parametrize("first_s", [-0.012, 0.012])
def test_a_first_time_that_is_off_is_made_up_for_once_at_most(first_s: float) -> None:
    jitter_of = np.random.default_rng(0).choice([-0.012, 0.012], 300)
    jitter_of[0] = first_s
    placed, notes = place((0.1 + np.arange(300) * BLOCK_S + jitter_of).tolist())
    assert abs(len(placed) - len(in_turn(0, 300)) - 0.1 * RATE) <= 0.024 * RATE
    assert [k for k in range(1, 301) if np.sum(placed == k) < N - 0.024 * RATE - 1] == []
    assert len(notes) <= 1  # how late the track begins


@pytest.mark.parametrize("n_lost", [1, 3, 4, 20])
@pytest.mark.parametrize("n_after", [1, 3, 50])
def test_lost_packets_are_silence_at_their_place(n_lost: int, n_after: int) -> None:
    times_s = np.arange(50 + n_lost + n_after) * BLOCK_S
    placed, notes = place(np.delete(times_s, np.s_[50 : 50 + n_lost]).tolist())
    silence = np.zeros(n_lost * N, int)
    np.testing.assert_array_equal(
        placed, np.concatenate([in_turn(0, 50), silence, in_turn(50, 50 + n_after)])
    )
    assert len(notes) == (n_lost * BLOCK_S > 0.1)


def test_packets_lost_again_and_again() -> None:
    """Every third one: no gap is followed by many packets without another."""
    times_s = np.delete(np.arange(60) * BLOCK_S, np.s_[10:60:3])
    placed, notes = place(times_s.tolist())
    assert len(placed) == 60 * N - N * (59 in range(10, 60, 3))
    for k, start_s in enumerate(times_s):
        assert np.flatnonzero(placed == k + 1)[0] == round(start_s * RATE)
    (note,) = notes
    assert "gaps of 0.3" in note


def test_one_wrong_time_is_jitter_and_an_overlap_is_not() -> None:
    times_s = np.arange(40) * BLOCK_S
    times_s[20] += 0.06
    placed, _ = place(times_s.tolist())
    np.testing.assert_array_equal(placed, in_turn(0, 40))
    times_s = np.arange(40) * BLOCK_S
    times_s[20:] -= 0.06
    placed, _ = place(times_s.tolist())
    np.testing.assert_array_equal(placed, np.concatenate([in_turn(0, 20), in_turn(23, 40)]))
