"""A corpus of short texts, and two stand-ins for the model: made-up records, and a fake tracer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnitrace_core.errors import SampleError
from omnitrace_core.records import Fold, ReadySample, TokenTrace
from omnitrace_core.tracing.batch_tracer import TracedBy
from pipeline.graph import plan_row
from pipeline.planning.plan import Chunk
from pipeline.run_folder.commit import commit_chunk
from pipeline.storage.folder import Folder
from stages.arrow.chunk import sample_structs, with_rows
from stages.arrow.sample_schema import SAMPLE
from stages.arrow.table_schema import RECORD, SCHEMA_VERSION
from stages.guards.attempts import AttemptLog
from stages.read_samples import read_samples
from stages.trace_decode import TraceDecode, TraceDecodeOptions

_ROW_GROUP = 64  # rows, as `omnitrace ingest` writes them
_QUESTION = (
    "Anna brought the lamp to the kitchen. Jonas brought the key to the station. Where is it?"
)
_ANSWER = "The lamp is in the kitchen. The key is at the station."
_TOKENS = 14


def write_input(folder: str, n_rows: int, n_shards: int) -> None:
    """Write samples with one text and unique ids, in shards of about the same size."""
    storage = Folder(folder)
    part = {"type": "text", "text": _QUESTION}
    messages = [[{"role": "user", "content": [part]}]]
    question_messages = pa.array(messages, SAMPLE.field("messages").type)
    for number, rows in enumerate(np.array_split(np.arange(n_rows), n_shards)):
        columns = {
            "sample_id": pa.array([f"sample-{row:010d}" for row in rows]),
            "messages": question_messages.take(pa.array(np.zeros(len(rows), np.int64))),
        }
        with storage.writing(f"part-{number:06d}.parquet") as path:
            pq.write_table(pa.table(columns), path, row_group_size=_ROW_GROUP)


def config_tree(folder: str, chunk_samples: int, **more: dict[str, Any]) -> dict[str, Any]:
    """The config of a run over `folder`/input; only planning reads the model."""
    return {
        "input": {"path": f"{folder}/input"},
        "output": {"path": f"{folder}/output"},
        "run": {"chunk_samples": chunk_samples},
        "model": {"path": "omnitrace-tiny", "device": "cpu", "gpus_per_replica": 0},
    } | more


def do_chunk(
    chunk: Chunk, folder: str, n_tokens: int = _TOKENS, n_units: int = 3
) -> dict[str, Any]:
    """Read a chunk's rows as the graph does, and commit made-up records of them."""
    table = read_samples(plan_row(chunk))
    rows = sample_structs(table)
    keys = rows.field("row_key").to_pylist()
    ids = rows.field("sample").field("sample_id").to_pylist()
    records = [_record(*named, n_tokens, n_units) for named in zip(keys, ids, strict=True)]
    record_table = with_rows(table, pa.array(records, RECORD))
    committed: dict[str, Any] = commit_chunk(record_table, Folder(folder)).to_pylist()[0]
    return committed


def _record(row_key: str, sample_id: str, n_tokens: int, n_units: int) -> dict[str, Any]:
    """A made-up record: two spans with two sources each, and a trace of one signal."""
    shared = {"row_key": row_key, "sample_id": sample_id, "schema_version": SCHEMA_VERSION}
    sample = {
        **shared,
        "status": "ok",
        "response": _ANSWER,
        "response_token_ids": list(range(n_tokens)),
        "n_generated_tokens": n_tokens,
        "error_stage": "",
        "error_code": "",
        "message": "",
        "notes": [],
    }
    source = {"kind": "sentence", "modality": "text", "part_index": 0, "share": 0.5, "mass": 0.2}
    sources = [{**source, "unit_id": i, "rank": i + 1, "text": _QUESTION[:37]} for i in range(2)]
    span = {"outcome": "supported", "confidence": 0.5, "sources": sources}
    spans = [
        {**shared, **span, "span_index": i, "text": text}
        for i, text in enumerate(_ANSWER.split(". "))
    ]
    rng = _random(row_key)
    trace = {
        **shared,
        "signal": "attmean",
        "n_tokens": n_tokens,
        "n_units": n_units,
        "mass": rng.random(n_tokens * n_units, np.float32),
        "peak": rng.random(n_tokens * n_units, np.float32),
    }
    return {"sample": sample, "spans": spans, "traces": [trace]}


class FakeTraceDecode(TraceDecode):
    """The real trace stage around a tracer without a model."""

    def __init__(
        self,
        options: TraceDecodeOptions,
        attempts: AttemptLog | None = None,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(options, attempts, timeout_s, load=_load)


def _load(options: TraceDecodeOptions) -> FakeTracer:
    return FakeTracer(options.model.path, options.trace.signals)


class FakeTracer:
    """Gives every sample the same answer, and random masses over its units."""

    def __init__(self, model: str, signals: Sequence[str]) -> None:
        self._signals = signals
        self.replay_s = 0.0
        self.traced_by = TracedBy(model, revision="", dtype="", attention="", device="cpu")

    def warm_up(self) -> None:
        """Do nothing."""

    def encode(self, ready: Sequence[ReadySample]) -> Sequence[ReadySample]:
        """Return the samples unchanged."""
        return ready

    def trace_encoded(self, prepared: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
        """A made-up trace of each sample."""
        return [self._trace(item) for item in prepared]

    def _trace(self, ready: ReadySample) -> TokenTrace:
        words = [f"{word} " for word in _ANSWER.split(" ")]
        ends = np.cumsum([len(word) for word in words]).tolist()
        rng = _random(ready.sample.sample_id)
        shape = (len(words), len(ready.units))
        nothing = np.zeros(len(words), np.float32)
        fold = Fold(rng.random(shape, np.float32), rng.random(shape, np.float32), nothing, nothing)
        return TokenTrace(
            response="".join(words),
            token_ids=tuple(range(len(words))),
            tokens=tuple(words),
            char_spans=tuple(zip([0, *ends[:-1]], ends, strict=True)),
            logprobs=nothing,
            finish_reason="stop",
            n_prompt_tokens=20,
            folds=dict.fromkeys(self._signals, fold),
        )


def _random(name: str) -> np.random.Generator:
    """A generator seeded by the row: equal rows would compress better than those of a corpus."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def path_of(folder: Path) -> str:
    """The absolute path, which is the same in other processes."""
    return str(folder.resolve())
