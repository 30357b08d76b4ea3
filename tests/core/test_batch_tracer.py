"""Batches of the tracer: one sample's failure, memory, and responses that are already known."""

from __future__ import annotations

import pytest
import torch

from omnitrace_core.batch_tracer import BatchTracer
from omnitrace_core.errors import SampleError, UnknownName
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from tests.core.samples import one_of_each, ready


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> BatchTracer:
    options = ModelOptions(path=tiny_model, device="cpu")
    return BatchTracer(options, DecodeOptions(max_new_tokens=5))


@pytest.fixture(scope="module")
def samples() -> dict[str, ReadySample]:
    return one_of_each()


def test_out_of_memory_halves_the_batch(
    tracer: BatchTracer, samples: dict[str, ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = tracer.backend.generate
    sizes: list[int] = []

    def scarce(prepared, decode):  # type: ignore[no-untyped-def]
        sizes.append(len(prepared.encoded))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("simulated")
        return generate(prepared, decode)

    monkeypatch.setattr(tracer.backend, "generate", scarce)
    traces = tracer.trace([samples["text"], samples["image"], samples["audio"]])
    assert all(isinstance(trace, TokenTrace) for trace in traces)
    assert sizes[0] == 3
    assert sizes.count(1) == 3


def test_one_poisoned_sample_costs_one_sample(
    tracer: BatchTracer, samples: dict[str, ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = tracer.backend.generate

    def moody(prepared, decode):  # type: ignore[no-untyped-def]
        if any(item.ready is samples["image"] for item in prepared.encoded):
            raise ValueError("bad kernel")
        return generate(prepared, decode)

    monkeypatch.setattr(tracer.backend, "generate", moody)
    first, second, third = tracer.trace([samples["text"], samples["image"], samples["audio"]])
    assert isinstance(first, TokenTrace)
    assert isinstance(third, TokenTrace)
    assert isinstance(second, SampleError)
    assert second.code == "trace_error"
    assert "bad kernel" in str(second)


def test_ids_outside_the_vocabulary_are_the_samples_error(tracer: BatchTracer) -> None:
    good = ready(["Hello."], response="Hi.")
    bad = ready(["Hello."], response_token_ids=(1, 10**6))
    first, second = tracer.trace([good, bad])
    assert isinstance(first, TokenTrace)
    assert isinstance(second, SampleError)
    assert "vocabulary" in str(second)


def test_ids_of_another_tokenizer_are_the_samples_error(tracer: BatchTracer) -> None:
    bad = ready(["Hello."], response="Yes, it is.", response_token_ids=(70, 71, 72))
    end = next(iter(tracer.backend.end_ids))
    empty = ready(["Hello."], response_token_ids=(end,))
    first, second = tracer.trace([bad, empty])
    assert isinstance(first, SampleError)
    assert "another tokenizer" in str(first)
    assert isinstance(second, SampleError)
    assert second.code == "response_empty"


def test_unknown_signal_lists_the_known(tiny_model: str) -> None:
    with pytest.raises(UnknownName, match="attmean"):
        BatchTracer(ModelOptions(path=tiny_model), trace=TraceOptions(signals=("attwish",)))
