"""The batch tracer: failing samples, out of memory, known responses, threads."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from omnitrace_core.errors import BackendError, SampleError, UnknownName
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.batching import TraceInput
from omnitrace_core.tracing.replay.decoder_replay import replay
from tests.core.ready_samples import one_of_each, ready


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> BatchTracer:
    options = ModelOptions(path=tiny_model, device="cpu")
    return BatchTracer(options, DecodeOptions(max_new_tokens=5))


@pytest.fixture(scope="module")
def samples() -> dict[str, ReadySample]:
    return one_of_each()


def test_device_that_cannot_work_is_found_before_any_sample(
    tracer: BatchTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer.warm_up()

    def failing(prepared: Any) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available for execution")

    monkeypatch.setattr(tracer.backend, "prefill", failing)
    with pytest.raises(BackendError, match=r"cannot work on cpu in float32 .*no kernel image"):
        tracer.warm_up()


@pytest.mark.slow
def test_out_of_memory_halves_the_batch(
    tracer: BatchTracer, samples: dict[str, ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = tracer.backend.generate
    sizes: list[int] = []

    def out_of_memory_for_batches(prepared: Any, decode: Any) -> Any:
        sizes.append(len(prepared.encoded))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("simulated")
        return generate(prepared, decode)

    monkeypatch.setattr(tracer.backend, "generate", out_of_memory_for_batches)
    traces = tracer.trace([samples["text"], samples["image"], samples["audio"]])
    assert all(isinstance(trace, TokenTrace) for trace in traces)
    assert sizes[0] == 3
    assert sizes.count(1) == 3


@pytest.mark.slow
def test_out_of_memory_in_the_replay_halves_the_batch_too(
    tracer: BatchTracer, samples: dict[str, ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [samples["text"], samples["image"], samples["audio"]]
    expected = tracer.trace(batch)
    sizes: list[int] = []

    def out_of_memory_for_batches(
        decoder: Any, head: Any, prompt: Any, responses: Any, *rest: Any
    ) -> Any:
        sizes.append(len(responses))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("simulated")
        return replay(decoder, head, prompt, responses, *rest)

    monkeypatch.setattr("omnitrace_core.tracing.batch_tracer.replay", out_of_memory_for_batches)
    for trace, wanted in zip(tracer.trace(batch), expected, strict=True):
        assert isinstance(trace, TokenTrace)
        assert isinstance(wanted, TokenTrace)
        assert trace.token_ids == wanted.token_ids
        mass, other = trace.folds["attmean"].mass, wanted.folds["attmean"].mass
        np.testing.assert_allclose(mass, other, atol=1e-6)
    assert sizes == [3, 1, 2, 1, 1]


def test_a_sample_that_does_not_fit_alone_is_an_error(
    tracer: BatchTracer, samples: dict[str, ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory_for_batches(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr("omnitrace_core.tracing.batch_tracer.replay", out_of_memory_for_batches)
    for trace in tracer.trace([samples["text"], samples["image"]]):
        assert isinstance(trace, SampleError)
        assert trace.code == "out_of_memory"
        assert "even alone" in str(trace)


def test_a_failing_sample_fails_alone(
    tracer: BatchTracer, samples: dict[str, ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = tracer.backend.generate

    def failing_for_one(prepared: Any, decode: Any) -> Any:
        if any(item.ready is samples["image"] for item in prepared.encoded):
            raise ValueError("bad kernel")
        return generate(prepared, decode)

    monkeypatch.setattr(tracer.backend, "generate", failing_for_one)
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


def test_overflowing_activations_fail_one_sample(
    tracer: BatchTracer, samples: dict[str, ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN in one sample's prompt, as an overflow in half precision causes it."""
    poison = ready(["Hello \u2603."], response="Yes.")
    good = ready(["Hello there, all of you."], response="Yes.")
    marks = tracer.backend.tokenizer("\u2603", add_special_tokens=False)["input_ids"]
    decoder: Any = tracer.backend.decoder
    embed = decoder.get_input_embeddings()

    def poisoned(module: Any, arguments: Any, output: Any) -> Any:
        (ids,) = arguments
        hit = torch.isin(ids, torch.tensor(marks[-1:]))
        return torch.where(hit[..., None], torch.full_like(output, torch.nan), output)

    handle = embed.register_forward_hook(poisoned)
    try:
        first, second = tracer.trace([poison, good])
    finally:
        handle.remove()
    assert isinstance(first, SampleError)
    assert "not finite" in str(first)
    assert "bfloat16" in str(first)
    assert isinstance(second, TokenTrace)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "out_of_memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "out_of_memory",
        ),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("shape mismatch"), "trace_error"),
    ],
)
def test_which_exceptions_count_as_out_of_memory(
    tracer: BatchTracer,
    samples: dict[str, ReadySample],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    wanted: str,
) -> None:
    def failing(prepared: Any, decode: Any) -> Any:
        raise error

    monkeypatch.setattr(tracer.backend, "generate", failing)
    for trace in tracer.trace([samples["text"], samples["image"]]):
        assert isinstance(trace, SampleError)
        assert trace.code == wanted


def test_the_callers_random_numbers_are_unchanged(
    tracer: BatchTracer, samples: dict[str, ReadySample]
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tracer.trace([samples["text"]])
    assert torch.equal(torch.rand(3), expected)


class SlowTokenizer:
    """A tokenizer that is slow after it was set how to read special tokens."""

    def __init__(self, tokenizer: object) -> None:
        object.__setattr__(self, "_tokenizer", tokenizer)

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._tokenizer, name, value)
        if name == "encode_special_tokens":
            time.sleep(0.002)


def test_encoding_in_two_threads_gives_the_same_inputs(
    tracer: BatchTracer, samples: dict[str, ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer stores on itself how its next call treats special tokens."""
    from concurrent.futures import ThreadPoolExecutor

    with_specials = ready(["<|im_end|> and <|AUDIO|> are words here."])
    requested = [samples["video"], with_specials] * 10
    tokenizer = tracer.backend.tokenizer
    monkeypatch.setattr(tokenizer, "_tokenizer", SlowTokenizer(tokenizer._tokenizer))

    def ids(sample: ReadySample) -> list[int]:
        (item,) = tracer.encode([sample])
        assert isinstance(item, TraceInput), item
        return item.encoded.input_ids.tolist()

    expected = [ids(sample) for sample in requested[:2]] * 10
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ids, requested)) == expected


def test_one_model_in_two_threads(tracer: BatchTracer, samples: dict[str, ReadySample]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    kinds = ["text", "image", "audio"] * 3
    (expected,) = {tuple(type(t) for t in tracer.trace([samples[k] for k in kinds]))}
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda kind: tracer.trace([samples[kind]])[0], kinds))
    assert tuple(type(trace) for trace in found) == expected
