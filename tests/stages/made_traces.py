"""A tracer that needs no model: its numbers are made up, their shapes and sums are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from omnitrace_core.errors import SampleError
from omnitrace_core.records import Fold, ReadySample, TokenTrace
from stages.trace_decode import TraceDecode

TRACED_BY = {
    "model": "made-up",
    "revision": "",
    "dtype": "float32",
    "attention": "sdpa",
    "device": "cpu",
}


def make_trace(ready: ReadySample, signals: Sequence[str] = ("attmean",)) -> TokenTrace:
    """One token per word of the response, its mass on a random unit for the most part."""
    response = ready.sample.response or "The lamp is red. It stands in the hall."
    words = response.split(" ")
    tokens = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    ends = np.cumsum([len(token) for token in tokens])
    rng = np.random.default_rng(len(response))
    n_gen, n_units = len(tokens), len(ready.units)
    shares = rng.dirichlet(np.full(n_units + 2, 0.3), size=n_gen).astype(np.float32)
    fold = Fold(
        mass=shares[:, :n_units],
        peak=shares[:, :n_units] / 2,
        markup=shares[:, n_units],
        generated=shares[:, n_units + 1],
    )
    return TokenTrace(
        response=response,
        token_ids=tuple(range(n_gen)),
        tokens=tuple(tokens),
        char_spans=tuple(
            (int(end) - len(token), int(end)) for end, token in zip(ends, tokens, strict=True)
        ),
        logprobs=np.full(n_gen, -0.5, np.float32),
        finish_reason="given" if ready.sample.response else "stop",
        n_prompt_tokens=20,
        folds={signal: fold for signal in signals},
        notes=("made up",),
    )


class MadeTracer:
    """Remembers what it was asked to trace. faults: the exception to raise or return, by id."""

    def __init__(self, signals: Sequence[str] = ("attmean",), **faults: Exception) -> None:
        self.signals = signals
        self.faults = faults
        self.asked: list[ReadySample] = []
        self.calls: list[int] = []

    def trace(self, ready: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
        self.calls.append(len(ready))
        self.asked += ready
        return [self._one(item) for item in ready]

    def _one(self, ready: ReadySample) -> TokenTrace | SampleError:
        fault = self.faults.get(ready.sample.sample_id)
        if isinstance(fault, SampleError):
            return fault
        if fault is not None:
            raise fault
        return make_trace(ready, self.signals)


def trace_stage(tracer: MadeTracer) -> TraceDecode:
    """The trace stage around a made-up tracer, without loading a model."""
    stage = TraceDecode.__new__(TraceDecode)
    stage._tracer = tracer
    stage._traced_by = TRACED_BY
    return stage


def samples_of(table: pa.Table) -> list[dict[str, object]]:
    """The samples of a chunk as plain dicts."""
    rows: list[dict[str, object]] = table.to_pylist()[0]["samples"]
    return rows
