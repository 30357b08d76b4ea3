"""Faults of machines are counted until their chunk is committed; the third ends the run."""

from __future__ import annotations

import pytest

from omnitrace_core.errors import NodeFault, RunError
from pipeline.node_tries import NodeTries


def fault(node: str, chunk: str = "a-0") -> NodeFault:
    error = NodeFault(f"{node}, stage decode_media, chunk {chunk}: No space left; free space")
    error.node, error.chunk = node, chunk
    return error


def test_third_fault_ends_the_run_and_names_every_machine() -> None:
    pauses: list[float] = []
    tries = NodeTries(pauses.append)
    tries.failed(fault("n1"))
    tries.failed(fault("n2"))
    assert (tries.n_restarts, tries.nodes, pauses) == (2, ["n1", "n2"], [5.0, 30.0])
    with pytest.raises(RunError, match=r"in 3 tries.*n1, stage.*\| n2, stage.*same command"):
        tries.failed(fault("n1"))
    assert len(pauses) == 2


def test_chunk_that_is_committed_clears_its_faults_and_no_others() -> None:
    tries = NodeTries(lambda seconds: None)
    for chunk in "abcdef":
        tries.failed(fault("n1", chunk))
        tries.committed(chunk)
    tries.failed(fault("n1", "g"))
    tries.failed(fault("n1", "h"))
    tries.committed("i")
    with pytest.raises(RunError):
        tries.failed(fault("n1", "g"))
    assert tries.nodes == ["n1"]
