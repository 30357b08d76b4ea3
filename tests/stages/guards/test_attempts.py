"""Attempts at chunks, counted across the deaths of processes."""

from __future__ import annotations

import errno

import pytest

from omnitrace_core.errors import BackendError, NodeFault, Quarantined
from stages.guards.attempts import MAX_LOADS, Attempt, AttemptCounter, CountedLoad
from tests.stages.memory_log import MemoryLog


def begin(log: MemoryLog) -> Attempt:
    return AttemptCounter("trace", log).begin("chunk")


def die_at(log: MemoryLog, row: str) -> None:
    """An attempt whose process dies at a sample (from the third on), or anywhere before."""
    attempt = begin(log)
    for key in "abc":
        if attempt.one_by_one:
            attempt.announce(key)
        if key == row:
            return


def test_finished_chunk_leaves_no_record() -> None:
    log = MemoryLog()
    attempt = begin(log)
    assert (attempt.number, attempt.one_by_one) == (1, False)
    assert list(log.kept) == ["chunk.trace.json"]
    attempt.finish()
    assert log.kept == {}
    assert begin(log).number == 1


def test_third_attempt_goes_one_by_one() -> None:
    log = MemoryLog()
    numbers = []
    for _ in range(4):
        attempt = begin(log)
        numbers.append((attempt.number, attempt.one_by_one))
    assert numbers == [(1, False), (2, False), (3, True), (4, True)]


def test_sample_that_killed_two_processes_is_quarantined() -> None:
    log = MemoryLog()
    for _ in range(4):
        die_at(log, "b")
    attempt = begin(log)
    assert attempt.number == 5
    attempt.announce("a")
    with pytest.raises(Quarantined, match=r"^b: the process that worked on it died 4 times"):
        attempt.announce("b")
    attempt.announce("c")
    attempt.finish()
    assert log.kept == {}


def test_several_deadly_samples_are_quarantined() -> None:
    log = MemoryLog()
    for _ in range(20):
        attempt = begin(log)
        quarantined = []
        for key in "abc":
            try:
                if attempt.one_by_one:
                    attempt.announce(key)
            except Quarantined:
                quarantined.append(key)
            else:
                if key in "ac":
                    break
        else:
            break
    assert quarantined == ["a", "c"]
    assert attempt.number == 7


def test_deaths_with_the_driver_count_half() -> None:
    log = MemoryLog()
    for epoch in range(1, 6):
        die_at(log.at(epoch), "b")
    # The first two were of the whole chunk; three on this sample, each together with its driver.
    begin(log.at(6)).announce("b")
    attempt = begin(log.at(7))
    with pytest.raises(Quarantined):
        attempt.announce("b")


def test_processes_that_the_driver_ends_for_a_restart_do_not_count() -> None:
    log = MemoryLog()
    for _ in range(3):
        die_at(log, "b")
    for _ in range(10):
        log = log.restarted()
        die_at(log, "b")
    attempt = begin(log.restarted())
    assert attempt.number == 3
    attempt.announce("b")


def test_machine_that_cannot_load_a_model_is_reported_at_the_first_chunk() -> None:
    log = MemoryLog()
    loading = CountedLoad("a model", log)
    with loading:
        raise BackendError("the model's files cannot be read") from OSError(errno.EMFILE, "x")
    assert isinstance(loading.refusal, NodeFault)
    assert log.kept == {}
    with pytest.raises(BackendError), CountedLoad("a model", log):
        raise BackendError("no such model")


def test_loads_that_kill_their_worker_are_bounded() -> None:
    log = MemoryLog()
    for _ in range(MAX_LOADS):
        # A process that dies never leaves the block.
        loading = CountedLoad("a model", log)
        assert loading.refusal is None
        loading.__enter__()
    refusal = CountedLoad("a model", log).refusal
    assert "that loads a model died 5 times in a row" in str(refusal)
    assert log.kept == {}


def test_loads_that_fail_or_succeed_are_forgotten() -> None:
    log = MemoryLog()
    for _ in range(2 * MAX_LOADS):
        CountedLoad("a model", log).__enter__()
        with CountedLoad("a model", log):
            assert list(log.kept) == ["worker.load.json"]
        assert log.kept == {}
        with pytest.raises(KeyError), CountedLoad("a model", log):
            raise KeyError
        assert log.kept == {}
    with CountedLoad("a model", None):
        pass


def test_error_of_a_load_is_raised_though_the_store_fails() -> None:
    class Broken(MemoryLog):
        def delete(self, name: str) -> None:
            raise OSError("503")

    with pytest.raises(BackendError, match="no such model"), CountedLoad("a model", Broken()):
        raise BackendError("no such model")
    with pytest.raises(OSError, match="503"), CountedLoad("a model", Broken()):
        pass


def test_stages_and_chunks_count_apart() -> None:
    log = MemoryLog()
    begin(log)
    assert AttemptCounter("other", log).begin("chunk").number == 1
    assert AttemptCounter("trace", log).begin("other").number == 1
    assert begin(log).number == 2


def test_damaged_record_starts_the_count_again() -> None:
    log = MemoryLog()
    for content in (b"{", b"[]", b'{"wrong": 1}'):
        log.kept["chunk.trace.json"] = content
        assert begin(log).number == 1


def test_without_a_log_nothing_is_counted() -> None:
    attempts = AttemptCounter("trace", None)
    for _ in range(3):
        attempt = attempts.begin("chunk")
        assert attempt.number == 1
        attempt.announce("a")
    attempt.finish()
