from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline.storage.prefetch import prefetch_map


def test_results_are_in_order_and_items_are_not_taken_far_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    for number, result in enumerate(prefetch_map(lambda item: item * item, items(), 3)):
        assert result == number**2
        assert len(taken) <= number + 4
    assert len(taken) == 100


def test_all_threads_work_at_a_time() -> None:
    barrier = threading.Barrier(3)
    assert list(prefetch_map(lambda _: barrier.wait(20) >= 0, range(6), 3)) == [True] * 6


def test_error_is_raised_in_its_turn_and_stops_the_rest() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 5:
            raise KeyError(item)
        done.append(item)
        return item

    results = prefetch_map(work, range(1000), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(results)
    assert len(done) < 20
