"""Batches have similar samples, stay within the budget, and contain every sample."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from omnitrace_core.errors import FatalError
from omnitrace_core.options import DecodeOptions, ModelOptions
from omnitrace_core.records import TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.batching import TraceInput, batches
from omnitrace_core.tracing.responses import ResponseTokens
from tests.core.ready_samples import image, ready, sound, video


def item(
    index: int, n_prompt: int, n_response: int | None = None, sound_in_video: Any = None
) -> TraceInput:
    encoded = cast("Any", SimpleNamespace(n_prompt=n_prompt, sound_in_video=sound_in_video))
    response = None if n_response is None else ResponseTokens((1,) * n_response, "given")
    return TraceInput(index, encoded, response, n_prompt + (n_response or 10))


@pytest.mark.parametrize("seed", range(20))
def test_every_sample_is_in_one_batch_within_the_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = [
        item(
            index,
            int(rng.integers(1, 500)),
            None if rng.random() < 0.5 else int(rng.integers(1, 400)),
            [None, True, False][rng.integers(3)],
        )
        for index in range(rng.integers(1, 60))
    ]
    budget = int(rng.integers(50, 3000))
    grouped = list(batches(items, budget))
    assert sorted(one.index for batch in grouped for one in batch) == list(range(len(items)))
    for batch in grouped:
        assert len({one.response is None for one in batch}) == 1
        assert len({one.encoded.sound_in_video for one in batch} - {None}) <= 1
        assert len(batch) == 1 or len(batch) * max(one.n_tokens for one in batch) <= budget


def test_similar_lengths_share_a_batch() -> None:
    grouped = list(batches([item(0, 90), item(1, 20), item(2, 95), item(3, 22)], 250))
    assert [[one.index for one in batch] for batch in grouped] == [[2, 0], [3, 1]]


def test_a_long_known_response_counts() -> None:
    grouped = list(batches([item(0, 50, 10), item(1, 49, 400), item(2, 48, 10)], 300))
    assert [[one.index for one in batch] for batch in grouped] == [[0], [1], [2]]


@pytest.mark.slow
def test_mixed_samples_keep_their_order_and_values(tiny_model: str) -> None:
    """Generated and known responses, videos with and without sound, returned in input order."""
    samples = [
        ready(["Where is the lamp?"], response="In the hall."),
        ready([video(1), "What happened?"]),
        ready([image(2), "What is this?"]),
        ready([video(3, with_sound=False), "And here?"], response="A dog runs."),
        ready([video(4), video(5, with_sound=False), "Compare."]),
        ready([sound(6, 1.0), "Heard?"], response="Yes."),
        ready([video(7), "Again?"], response="It rings."),
    ]
    model = ModelOptions(path=tiny_model, device="cpu")
    together = BatchTracer(model, DecodeOptions(max_new_tokens=4)).trace(samples)
    small = ModelOptions(path=tiny_model, device="cpu", batch_tokens=1)
    alone = BatchTracer(small, DecodeOptions(max_new_tokens=4)).trace(samples)
    for sample, one, other in zip(samples, together, alone, strict=True):
        assert isinstance(one, TokenTrace)
        assert isinstance(other, TokenTrace)
        assert one.token_ids == other.token_ids
        assert (one.finish_reason == "given") == (sample.sample.response is not None)
        fold, wanted = one.folds["attmean"], other.folds["attmean"]
        np.testing.assert_allclose(fold.mass, wanted.mass, atol=1e-5)


@pytest.mark.slow
def test_sampling_is_seeded(tiny_model: str) -> None:
    samples = [ready(["Where is the lamp?"]), ready(["Tell me about the hall. And the lamp."])]
    model = ModelOptions(path=tiny_model, device="cpu")

    def ids(seed: int) -> list[tuple[int, ...]]:
        decode = DecodeOptions(max_new_tokens=8, do_sample=True, seed=seed)
        traces = BatchTracer(model, decode).trace(samples)
        return [trace.token_ids for trace in traces if isinstance(trace, TokenTrace)]

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)


def test_end_and_length_stop_a_response(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples of one batch may end at different steps."""
    samples = [ready(["Where is the lamp?"]), ready([image(1), "What is this?"])]
    model = ModelOptions(path=tiny_model, device="cpu")
    tracer = BatchTracer(model, DecodeOptions(max_new_tokens=6))
    free = tracer.trace(samples)
    assert all(isinstance(trace, TokenTrace) for trace in free)
    first, second = (cast("TokenTrace", trace) for trace in free)
    ends = [t for t in first.token_ids[1:] if t not in second.token_ids]
    assert ends, "the two answers should differ"
    monkeypatch.setattr(tracer.backend, "end_ids", frozenset({ends[0]}))
    cut, whole = (cast("TokenTrace", trace) for trace in tracer.trace(samples))
    assert cut.finish_reason == "stop"
    assert cut.token_ids == first.token_ids[: first.token_ids.index(ends[0])]
    assert (whole.finish_reason, whole.token_ids) == ("length", second.token_ids)
    n = len(cut.token_ids)
    for fold, wanted in (
        (cut.folds["attmean"].mass, first.folds["attmean"].mass[:n]),
        (whole.folds["attmean"].mass, second.folds["attmean"].mass),
    ):
        np.testing.assert_allclose(fold, wanted, atol=1e-6)


def test_a_broken_device_is_fatal_at_once(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = BatchTracer(ModelOptions(path=tiny_model, device="cpu"))
    calls = []

    def broken(prepared: Any, decode: Any) -> Any:
        calls.append(len(prepared.encoded))
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(tracer.backend, "generate", broken)
    with pytest.raises(FatalError, match="the device is broken"):
        tracer.trace([ready(["Hello."]), ready(["Hello there."])])
    assert calls == [2]
