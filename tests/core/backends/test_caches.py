"""Every kind of cache that generation can return, and the replay from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, StaticCache

from omnitrace_core.backends.base import Generated, PrefilledPrompt
from omnitrace_core.backends.caches import (
    can_keep_prompt,
    growing_cache,
    keep_prompt,
    preallocated_cache,
)
from omnitrace_core.errors import BackendError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from tests.core.oracle import ROWS, TOLERANCE, EagerOracle, slow_fold
from tests.core.ready_samples import one_of_each

SIGNALS = tuple(ROWS)


def make_tracer(path: str, **decode: Any) -> BatchTracer:
    return BatchTracer(
        ModelOptions(path=path, device="cpu"),
        DecodeOptions(max_new_tokens=6, **decode),
        TraceOptions(signals=SIGNALS),
    )


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> BatchTracer:
    return make_tracer(tiny_model)


@pytest.fixture(scope="module")
def samples() -> list[ReadySample]:
    return [one_of_each()[kind] for kind in ("text", "image", "audio")]


def assert_equal(first: list[Any], second: list[Any]) -> None:
    for one, other in zip(first, second, strict=True):
        assert isinstance(one, TokenTrace)
        assert isinstance(other, TokenTrace)
        assert one.token_ids == other.token_ids
        for name in SIGNALS:
            np.testing.assert_allclose(one.folds[name].mass, other.folds[name].mass, atol=2e-6)


def test_a_static_cache_gives_the_same(
    tiny_model: str,
    tracer: BatchTracer,
    samples: list[ReadySample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    static = make_tracer(tiny_model, cache="static")
    kinds = []
    generate = static.backend.generate

    def noted(*arguments: Any) -> Generated:
        generated = generate(*arguments)
        kinds.append(type(generated.prompt.cache))
        return generated

    def no_prefill(*arguments: Any) -> PrefilledPrompt:
        raise AssertionError("the static cache should have been used")

    monkeypatch.setattr(static.backend, "generate", noted)
    monkeypatch.setattr(static.backend, "prefill", no_prefill)
    assert_equal(static.trace(samples), tracer.trace(samples))
    assert kinds == [StaticCache]


@pytest.mark.slow
def test_the_prompt_is_run_again_if_the_cache_cannot_be_shortened(
    tracer: BatchTracer, samples: list[ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tracer.trace(samples)
    generate = tracer.backend.generate

    def of_beams(*arguments: Any) -> Generated:
        generated = generate(*arguments)
        cache: Any = generated.prompt.cache
        cache.batch_repeat_interleave(2)
        return generated

    monkeypatch.setattr(tracer.backend, "generate", of_beams)
    assert_equal(tracer.trace(samples), expected)


@pytest.mark.slow
def test_sliding_windows_equal_eager(tiny_model: str, samples: list[ReadySample]) -> None:
    """Their cache drops keys, so the prompt is run again with a cache that keeps all."""
    tracer = make_tracer(tiny_model)
    oracle = EagerOracle(tracer.backend, tiny_model)
    for model in (tracer.backend.model, oracle.model):
        slide(model.model.language_model)
    traces = tracer.trace(samples)
    for sample, trace in zip(samples, traces, strict=True):
        assert isinstance(trace, TokenTrace), trace
        eager, unit_index = oracle.forward(sample, trace.token_ids)
        assert (eager.attention[1, :, -1] == 0).any(), "the window should mask something"
        for name in SIGNALS:
            rows = ROWS[name](eager)
            expected = slow_fold(rows, unit_index, len(sample.units))
            limit = TOLERANCE.get(name, 1e-5) * rows.max(dim=1).values.numpy()[:, None]
            assert (np.abs(trace.folds[name].mass - expected.mass) <= limit).all(), name


def slide(decoder: Any, window: int = 12) -> None:
    """Give the middle layer a sliding window."""
    decoder.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    decoder.config.sliding_window = window
    decoder.config.use_sliding_window = True
    decoder.has_sliding_layers = True
    for layer, kind in zip(decoder.layers, decoder.config.layer_types, strict=True):
        layer.attention_type = kind
        layer.self_attn.sliding_window = window if kind == "sliding_attention" else None


def filled(cache: Any, batch: int, slots: int) -> Any:
    for layer in range(2):
        cache.update(torch.ones(batch, 1, slots, 4), torch.ones(batch, 1, slots, 4), layer)
    return cache


@pytest.mark.parametrize("make", [growing_cache, lambda: preallocated_cache(2, 9)])
def test_keep_prompt(make: Any) -> None:
    cache = filled(make(), 2, 7)
    assert can_keep_prompt(cache, 2, 5)
    assert not can_keep_prompt(cache, 4, 5)
    assert not can_keep_prompt(cache, 2, 8)
    keep_prompt(cache, 5)
    assert int(cache.get_seq_length()) == 5
    with pytest.raises(BackendError, match="has 5 slots, but the prompt needs 6"):
        keep_prompt(cache, 6)
    keep_prompt(cache, 0)
    assert int(cache.get_seq_length()) == 0


def test_a_cache_with_sliding_windows_cannot_be_shortened(
    tiny_model: str, tracer: BatchTracer
) -> None:
    text_config: Any = tracer.backend.decoder.config
    copied = type(text_config)(**text_config.to_dict())
    copied.layer_types = ["sliding_attention"] * 3
    copied.sliding_window = 4
    assert not can_keep_prompt(filled(DynamicCache(config=copied), 1, 7), 1, 5)
    assert not can_keep_prompt(DynamicCache(), 1, 0)
