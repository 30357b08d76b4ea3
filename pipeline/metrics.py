"""What workers tell Prometheus, through Ray's metrics endpoint, of each chunk they commit.

The numbers are those of the finished records' own columns. They are rates to watch, not accounts: a
task that Ray repeats counts twice, a worker that dies takes its last seconds along. Totals of a run
come from its manifests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
from ray.util import metrics

from pipeline.run_folder.lease import Claim
from pipeline.run_folder.parts import commit_chunk
from pipeline.storage.folder import Storage
from stages.arrow.chunk import rows_of

# Name -> what it counts, and its tags beside run_id.
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "omnitrace_chunks": ("Chunks committed.", ()),
    "omnitrace_rows": ("Input rows that became a record, ok or error.", ("status", "code")),
    "omnitrace_generated_tokens": ("Tokens of traced responses.", ("device",)),
    "omnitrace_trace_seconds": ("Generating and replaying, by the clock.", ("device",)),
    "omnitrace_replay_seconds": ("Of these, replaying.", ("device",)),
    "omnitrace_decode_seconds": ("Fetching and decoding media.", ()),
    "omnitrace_speech_seconds": ("Finding speech and cutting units.", ()),
    "omnitrace_curate_seconds": ("Cutting spans and curating sources.", ()),
    "omnitrace_retries": ("Attempts at tracing a row beyond its first.", ()),
}


@dataclass(frozen=True, slots=True)
class Count:
    """An amount by which a counter rises. tags: in the order of `COUNTERS`."""

    name: str
    tags: tuple[str, ...]
    amount: float


def commit_and_count(table: pa.Table, folder: Storage, claim: Claim, run_id: str) -> pa.Table:
    """`commit_chunk`, and its counts to Ray."""
    committed = commit_chunk(table, folder, claim)
    for count in counts(table):
        names = COUNTERS[count.name][1]
        tags = {"run_id": run_id, **dict(zip(names, count.tags, strict=True))}
        _counter(count.name).inc(count.amount, tags)
    return committed


def counts(table: pa.Table) -> Iterator[Count]:
    """What a chunk of RECORD rows adds to the counters; nothing is not told."""
    yield Count("omnitrace_chunks", (), 1)
    sample = rows_of(table).field("sample")
    status, code = (sample.field(name).to_pylist() for name in ("status", "error_code"))
    for tags, number in Counter(zip(status, code, strict=True)).items():
        yield Count("omnitrace_rows", tags, number)
    timings = sample.field("timings")
    devices = pc.fill_null(pc.struct_field(sample, ["traced_by", "device"]), "").to_pylist()
    for name, column in (
        ("omnitrace_generated_tokens", sample.field("n_generated_tokens")),
        ("omnitrace_trace_seconds", pc.struct_field(timings, "trace_s")),
        ("omnitrace_replay_seconds", pc.struct_field(timings, "replay_s")),
    ):
        yield from _by_device(name, devices, column)
    for stage in ("decode", "speech", "curate"):
        spent = pc.sum(pc.struct_field(timings, f"{stage}_s")).as_py()
        yield from _told(f"omnitrace_{stage}_seconds", (), spent)
    again = pc.max_element_wise(pc.subtract(sample.field("attempts"), 1), 0)
    yield from _told("omnitrace_retries", (), pc.sum(again).as_py())


def _by_device(name: str, devices: list[str], column: pa.Array) -> Iterator[Count]:
    spent: Counter[str] = Counter()
    for device, amount in zip(devices, column.to_pylist(), strict=True):
        spent[device] += amount or 0
    for device, amount in spent.items():
        yield from _told(name, (device,), amount)


def _told(name: str, tags: tuple[str, ...], amount: float | None) -> Iterator[Count]:
    if amount:
        yield Count(name, tags, amount)


@cache
def _counter(name: str) -> metrics.Counter:
    """One per process: Ray adds up what all processes of a node tell under a name."""
    description, tags = COUNTERS[name]
    return metrics.Counter(name, description, ("run_id", *tags))
