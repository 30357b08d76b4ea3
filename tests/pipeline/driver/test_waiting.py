from __future__ import annotations

import io
from itertools import count

import pytest

from pipeline.driver import waiting
from pipeline.driver.progress import Progress
from pipeline.driver.waiting import Amount, Watch

NEEDS = Amount(gpus=8, cpus=40)
SMALL = Amount(gpus=0, cpus=16)
LARGE = Amount(gpus=8, cpus=64)
NONE = Amount(0, 0)


def test_capacity_to_come_is_said_every_minute() -> None:
    watch = Watch(NEEDS, now=0)
    said = {now: watch.look(now, 0, SMALL, SMALL) for now in range(0, 200, 5)}
    expected = (
        "waiting for capacity: the graph needs 8 GPUs and 40 CPUs, the cluster has 0 GPUs and "
        "16 CPUs"
    )
    assert {now: text for now, text in said.items() if text} == dict.fromkeys(
        (60, 120, 180), expected
    )


def test_nothing_is_said_while_chunks_are_committed() -> None:
    watch = Watch(NEEDS, now=0)
    assert [watch.look(now, now, SMALL, NONE) for now in range(0, 300, 30)] == [""] * 10


def test_a_node_lost_on_the_way_is_said() -> None:
    watch = Watch(NEEDS, now=0)
    free = LARGE - NEEDS
    assert watch.look(30, 4, LARGE, LARGE) == watch.look(60, 5, LARGE, free) == ""
    assert watch.look(119, 5, SMALL, NONE) == ""
    assert "the cluster has 0 GPUs and 16 CPUs" in watch.look(120, 5, SMALL, NONE)


def test_models_that_load_are_said_once_and_very_slow_chunks() -> None:
    watch = Watch(NEEDS, now=0)
    free = LARGE - NEEDS
    said = [watch.look(now, 0, LARGE, LARGE if now < 10 else free) for now in range(0, 300, 5)]
    assert [text for text in said if text] == [
        "there is capacity for the graph: models load, or the first chunk is at work"
    ]
    assert [watch.look(now, 1, LARGE, free) for now in range(300, 600, 5)] == [""] * 60
    said = [watch.look(now, 1, LARGE, free) for now in range(600, 2400, 5)]
    assert [text[:42] for text in said if text] == [
        "no chunk was committed for 15 minutes, tho",
        "no chunk was committed for 30 minutes, tho",
    ]
    assert watch.look(2405, 2, LARGE, free) == watch.look(2500, 2, LARGE, free) == ""


def test_a_long_wait_for_capacity_is_no_hang() -> None:
    watch = Watch(NEEDS, now=0)
    for now in range(0, 10_800, 5):
        watch.look(now, 0, SMALL, SMALL)
    free = LARGE - NEEDS
    said = [
        watch.look(now, 0, LARGE, LARGE if now < 10_810 else free)
        for now in range(10_800, 12_400, 5)
    ]
    assert [text[:42] for text in said if text] == [
        "there is capacity for the graph: models lo",
        "no chunk was committed for 15 minutes, tho",
    ]


def test_what_others_hold_is_said_until_they_give_it_back() -> None:
    watch = Watch(Amount(0, 1.85), now=0)
    has = Amount(0, 3)
    said = [watch.look(now, 0, has, Amount(0, 1.75)) for now in range(0, 65, 5)]
    assert said[-1] == (
        "waiting for capacity: the graph needs 0 GPUs and 1.85 CPUs, and of the cluster's 0 GPUs "
        "and 3 CPUs others hold 0 GPUs and 1.25 CPUs: another job, or an earlier run whose actors "
        "are still alive"
    )
    assert watch.look(65, 0, has, has) == ""
    assert "there is capacity" in watch.look(120, 0, has, Amount(0, 1.15))


def test_the_thread_says_it_on_the_progress_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    answers = iter([ConnectionError("gone"), {"CPU": 16.0}, {"CPU": 16.0}, {"CPU": 16.0}])

    def resources() -> dict[str, float]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("ray.cluster_resources", resources)
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 16.0})
    clock = (30.0 * tick for tick in count())
    waits = iter([False, False, False, True])
    waiting._watch(NEEDS, Progress(9, 9, stream=stream), lambda _: next(waits), lambda: next(clock))
    assert stream.getvalue().startswith("waiting for capacity: the graph needs 8 GPUs")
    assert stream.getvalue().count("\n") == 1
