"""Faults of the machine leave a stage with its name, and never as a sample's error."""

from __future__ import annotations

import errno
import socket
import sys

import pyarrow as pa
import pytest

from omnitrace_core.errors import LeaseLost, MediaMissing, NodeFault, TraceError
from stages.guards.node_guard import naming_node_faults
from stages.guards.row_guard import as_row_error, guarded

CHUNK = pa.table({"chunk_key": ["a-0"]})


def _sample_error() -> MediaMissing:
    try:
        raise MediaMissing("a.png: no such file") from OSError(errno.EMFILE, "Too many open files")
    except MediaMissing as error:
        return error


@naming_node_faults("decode_media")
def stage(table: pa.Table, error: Exception | None = None) -> int:
    if error is not None:
        raise error
    return table.num_rows


def test_fault_names_machine_stage_and_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests of this process may have joined a Ray.
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert stage(CHUNK) == 1
    with pytest.raises(NodeFault, match="Too many open files") as caught:
        stage(CHUNK, _sample_error())
    assert str(caught.value).startswith(f"{socket.gethostname()}, stage decode_media, chunk a-0: ")
    assert (caught.value.chunk, caught.value.node) == ("a-0", "")


@pytest.mark.parametrize("error", [ValueError("x"), LeaseLost("taken"), TraceError("no")])
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        stage(CHUNK, error)
    assert caught.value is error


def test_lost_lease_is_no_fault_of_the_machine() -> None:
    lost = LeaseLost("taken")
    lost.__cause__ = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(LeaseLost):
        stage(CHUNK, lost)


def test_row_guard_records_no_fault_of_the_machine() -> None:
    def work() -> None:
        raise _sample_error()

    with pytest.raises(NodeFault, match="Too many open files"):
        guarded("decode_media", "a:0", work)
    with pytest.raises(NodeFault, match="Too many open files"):
        as_row_error("trace_decode", _sample_error())
