"""Prometheus counters of committed chunks, exported through Ray's metrics endpoint.

The amounts are read from the columns of the finished records. They serve to watch rates, not to
account for a run: a task that Ray repeats is counted twice, and a worker that dies loses the
amounts of its last seconds. The totals of a run are in its manifests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
from ray.util import metrics

from stages.arrow.chunk import sample_structs

# Name -> description, and tags besides run_id.
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "omnitrace_chunks": ("Chunks committed.", ()),
    "omnitrace_rows": ("Input rows that became a record, ok or error.", ("status", "code")),
    "omnitrace_generated_tokens": ("Tokens of traced responses.", ("device",)),
    "omnitrace_trace_seconds": ("Generating and replaying, by the clock.", ("device",)),
    "omnitrace_replay_seconds": ("Of these, replaying.", ("device",)),
    "omnitrace_decode_seconds": ("Decoding media.", ()),
    "omnitrace_fetch_seconds": ("Fetching media from files, stores and the web.", ()),
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


def add_chunk_to_counters(table: pa.Table, run_id: str) -> None:
    """Raise the counters of this process by a chunk of RECORD rows."""
    for count in counts(table):
        names = COUNTERS[count.name][1]
        tags = {"run_id": run_id, **dict(zip(names, count.tags, strict=True))}
        counter(count.name).inc(count.amount, tags)


def counts(table: pa.Table) -> Iterator[Count]:
    """What a chunk of RECORD rows adds to the counters; amounts of zero are left out."""
    yield Count("omnitrace_chunks", (), 1)
    sample = sample_structs(table).field("sample")
    status, code = (sample.field(name).to_pylist() for name in ("status", "error_code"))
    for tags, n_rows in Counter(zip(status, code, strict=True)).items():
        yield Count("omnitrace_rows", tags, n_rows)
    timings = sample.field("timings")
    devices = pc.fill_null(pc.struct_field(sample, ["traced_by", "device"]), "").to_pylist()
    for name, column in (
        ("omnitrace_generated_tokens", sample.field("n_generated_tokens")),
        ("omnitrace_trace_seconds", pc.struct_field(timings, "trace_s")),
        ("omnitrace_replay_seconds", pc.struct_field(timings, "replay_s")),
    ):
        yield from _by_device(name, devices, column)
    for stage in ("fetch", "decode", "speech", "curate"):
        seconds = pc.sum(pc.struct_field(timings, f"{stage}_s")).as_py()
        yield from _unless_zero(f"omnitrace_{stage}_seconds", (), seconds)
    retries = pc.max_element_wise(pc.subtract(sample.field("attempts"), 1), 0)
    yield from _unless_zero("omnitrace_retries", (), pc.sum(retries).as_py())


def _by_device(name: str, devices: list[str], column: pa.Array) -> Iterator[Count]:
    amounts: Counter[str] = Counter()
    for device, amount in zip(devices, column.to_pylist(), strict=True):
        amounts[device] += amount or 0
    for device, amount in amounts.items():
        yield from _unless_zero(name, (device,), amount)


def _unless_zero(name: str, tags: tuple[str, ...], amount: float | None) -> Iterator[Count]:
    if amount:
        yield Count(name, tags, amount)


@cache
def counter(name: str) -> metrics.Counter:
    """The counter of this process; Ray adds up those of all processes of a node."""
    description, tags = COUNTERS[name]
    return metrics.Counter(name, description, ("run_id", *tags))
