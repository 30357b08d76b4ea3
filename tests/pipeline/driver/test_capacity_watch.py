from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import count

import pytest

from pipeline.driver.capacity_watch import CapacityWatch, Resources, watch_capacity
from pipeline.driver.progress import Progress

NEEDS = Resources(gpus=8, cpus=40)
SMALL = Resources(gpus=0, cpus=16)
LARGE = Resources(gpus=8, cpus=64)
NONE = Resources(0, 0)


def test_missing_capacity_is_reported_every_minute() -> None:
    watch = CapacityWatch(NEEDS, now=0)
    messages = {now: watch.observe(now, 0, SMALL, SMALL) for now in range(0, 200, 5)}
    expected = (
        "waiting for capacity: the graph needs 8 GPUs and 40 CPUs, the cluster has 0 GPUs and "
        "16 CPUs"
    )
    assert {now: text for now, text in messages.items() if text} == dict.fromkeys(
        (60, 120, 180), expected
    )


def test_nothing_is_reported_while_chunks_are_committed() -> None:
    watch = CapacityWatch(NEEDS, now=0)
    assert [watch.observe(now, now, SMALL, NONE) for now in range(0, 300, 30)] == [""] * 10


def test_a_node_lost_during_the_run_is_reported() -> None:
    watch = CapacityWatch(NEEDS, now=0)
    free = LARGE - NEEDS
    assert watch.observe(30, 4, LARGE, LARGE) == watch.observe(60, 5, LARGE, free) == ""
    assert watch.observe(119, 5, SMALL, NONE) == ""
    assert "the cluster has 0 GPUs and 16 CPUs" in watch.observe(120, 5, SMALL, NONE)


def test_loading_models_are_reported_once_and_very_slow_chunks_repeatedly() -> None:
    watch = CapacityWatch(NEEDS, now=0)
    free = LARGE - NEEDS
    messages = [
        watch.observe(now, 0, LARGE, LARGE if now < 10 else free) for now in range(0, 300, 5)
    ]
    assert [text for text in messages if text] == [
        "there is capacity for the graph: models are loading, or the first chunk is being processed"
    ]
    assert [watch.observe(now, 1, LARGE, free) for now in range(300, 600, 5)] == [""] * 60
    messages = [watch.observe(now, 1, LARGE, free) for now in range(600, 2400, 5)]
    assert [text[:42] for text in messages if text] == [
        "no chunk was committed for 15 minutes, tho",
        "no chunk was committed for 30 minutes, tho",
    ]
    assert watch.observe(2405, 2, LARGE, free) == watch.observe(2500, 2, LARGE, free) == ""


def test_a_long_wait_for_capacity_does_not_count_as_a_hang() -> None:
    watch = CapacityWatch(NEEDS, now=0)
    for now in range(0, 10_800, 5):
        watch.observe(now, 0, SMALL, SMALL)
    free = LARGE - NEEDS
    messages = [
        watch.observe(now, 0, LARGE, LARGE if now < 10_810 else free)
        for now in range(10_800, 12_400, 5)
    ]
    assert [text[:42] for text in messages if text] == [
        "there is capacity for the graph: models ar",
        "no chunk was committed for 15 minutes, tho",
    ]


def test_resources_of_others_are_reported_until_they_are_free() -> None:
    watch = CapacityWatch(Resources(0, 1.85), now=0)
    has = Resources(0, 3)
    messages = [watch.observe(now, 0, has, Resources(0, 1.75)) for now in range(0, 65, 5)]
    assert messages[-1] == (
        "waiting for capacity: the graph needs 0 GPUs and 1.85 CPUs, and of the cluster's 0 GPUs "
        "and 3 CPUs others hold 0 GPUs and 1.25 CPUs: another job, or an earlier run whose actors "
        "are still alive"
    )
    assert watch.observe(65, 0, has, has) == ""
    assert "there is capacity" in watch.observe(120, 0, has, Resources(0, 1.15))


def test_messages_go_to_the_progress_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    answers: Iterator[Exception | dict[str, float]] = iter(
        [ConnectionError("gone"), {"CPU": 16.0}, {"CPU": 16.0}, {"CPU": 16.0}]
    )

    def cluster_resources() -> dict[str, float]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("ray.cluster_resources", cluster_resources)
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 16.0})
    clock = (30.0 * tick for tick in count())
    waits = iter([False, False, False, True])
    watch_capacity(NEEDS, Progress(9, 9, stream=stream), lambda _: next(waits), lambda: next(clock))
    assert stream.getvalue().startswith("waiting for capacity: the graph needs 8 GPUs")
    assert stream.getvalue().count("\n") == 1
