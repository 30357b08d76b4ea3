"""On a GPU: the same numbers as eager attention, whatever attention generates."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions, UnitOptions
from omnitrace_core.records import TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from tests.core.oracle import ROWS
from tests.core.ready_samples import one_of_each

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Machines with a GPU may lack spaCy, which only cuts texts into sentences.
UNITS = UnitOptions(text="sentence" if importlib.util.find_spec("spacy") else "part")


def trace_all(path: str, **model: Any) -> list[TokenTrace]:
    tracer = BatchTracer(
        ModelOptions(path=path, **model),
        DecodeOptions(max_new_tokens=8),
        TraceOptions(signals=tuple(ROWS)),
    )
    traces = tracer.trace(list(one_of_each(UNITS).values()))
    assert all(isinstance(trace, TokenTrace) for trace in traces), traces
    return traces  # type: ignore[return-value]


def test_cuda_equals_cpu(tiny_model: str) -> None:
    pairs = zip(
        trace_all(tiny_model, device="cuda", dtype="float32"),
        trace_all(tiny_model, device="cpu"),
        strict=True,
    )
    for on_gpu, on_cpu in pairs:
        assert on_gpu.token_ids == on_cpu.token_ids
        for name, fold in on_gpu.folds.items():
            limit = 1e-4 * on_cpu.folds[name].mass.max()
            np.testing.assert_allclose(fold.mass, on_cpu.folds[name].mass, atol=limit)


def test_the_same_run_twice_is_the_same_bytes(tiny_model: str) -> None:
    first, second = (trace_all(tiny_model, device="cuda") for _ in range(2))
    for one, other in zip(first, second, strict=True):
        for name, fold in one.folds.items():
            np.testing.assert_array_equal(fold.mass, other.folds[name].mass)


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is None, reason="flash_attn is not installed"
)
def test_flash_attention_generates_and_the_replay_traces(tiny_model: str) -> None:
    for trace in trace_all(
        tiny_model, device="cuda", dtype="bfloat16", attention="flash_attention_2"
    ):
        fold = trace.folds["attmean"]
        np.testing.assert_allclose(
            fold.mass.sum(1) + fold.markup + fold.uncovered + fold.generated, 1, atol=1e-3
        )
