"""Streamed tokens and their values equal those of the replay."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from omnitrace_core import OmniTracer
from omnitrace_core.errors import ConfigError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from tests.core.ready_samples import one_of_each

SIGNALS = ("attmean", "attgrads", "attnorm", "attraw", "attodds", "attboth")


def make_tracer(path: str, **decode: Any) -> BatchTracer:
    options = DecodeOptions(**{"max_new_tokens": 8, **decode})
    return BatchTracer(
        ModelOptions(path=path, device="cpu"), options, TraceOptions(signals=SIGNALS)
    )


def assert_same(tracer: BatchTracer, sample: ReadySample) -> None:
    (trace,) = tracer.trace([sample])
    tokens = list(tracer.stream(sample))
    assert isinstance(trace, TokenTrace)
    assert tuple(token.token_id for token in tokens) == trace.token_ids
    assert "".join(token.text for token in tokens) == trace.response.rstrip("\ufffd")
    np.testing.assert_allclose([token.logprob for token in tokens], trace.logprobs, atol=1e-4)
    for name, fold in trace.folds.items():
        limit = 1e-5 * max(1.0, float(fold.mass.max()))
        for field in dataclasses.fields(fold):
            streamed = np.concatenate([getattr(t.folds[name], field.name) for t in tokens])
            np.testing.assert_allclose(streamed, getattr(fold, field.name), atol=limit)
    for token, row in zip(tokens, trace.folds["attmean"].mass, strict=True):
        assert token.unit is not None
        assert token.unit.unit_id == row.argmax()
        assert token.mass == pytest.approx(row.max(), abs=1e-5)


@pytest.mark.parametrize("kind", ["text", "image", "audio", "video", "mixed"])
def test_stream_equals_the_replay(tiny_model: str, kind: str) -> None:
    assert_same(make_tracer(tiny_model), one_of_each()[kind])


def test_decoding_rules_are_those_of_generate(tiny_model: str) -> None:
    sample = one_of_each()["text"]
    assert_same(make_tracer(tiny_model, no_repeat_ngram_size=1), sample)
    assert_same(make_tracer(tiny_model, do_sample=True, seed=7), sample)


def test_random_numbers_drawn_between_tokens_change_nothing(tiny_model: str) -> None:
    tracer = make_tracer(tiny_model, do_sample=True, seed=3)
    sample = one_of_each()["text"]
    quiet = [token.token_id for token in tracer.stream(sample)]
    noisy = []
    for token in tracer.stream(sample):
        torch.rand(5)
        noisy.append(token.token_id)
    assert noisy == quiet


def test_a_known_response_is_followed(tiny_model: str) -> None:
    tracer = make_tracer(tiny_model, max_new_tokens=1)
    item = one_of_each()["image"]
    known = dataclasses.replace(item.sample, response="A red lamp.")
    assert_same(tracer, dataclasses.replace(item, sample=known))


def test_the_model_can_be_used_during_a_stream(tiny_model: str) -> None:
    tracer = make_tracer(tiny_model)
    first, second = one_of_each()["text"], one_of_each()["image"]
    expected = [token.token_id for token in tracer.stream(first)]
    stream = tracer.stream(first)
    first_tokens = [token.token_id for token in itertools.islice(stream, 2)]
    (between,) = tracer.trace([second])
    assert isinstance(between, TokenTrace)
    rest = [token.token_id for token in stream]
    assert first_tokens + rest == expected
    next(tracer.stream(first))  # a stream that is never finished
    config: Any = tracer.backend.decoder.config
    assert config._attn_implementation == "sdpa"


def test_omnitracer_streams(tiny_model: str) -> None:
    tracer = OmniTracer(tiny_model, decode=DecodeOptions(max_new_tokens=4))
    message = {"role": "user", "content": "The lamp is red. Where is the lamp?"}
    tokens = list(tracer.stream({"messages": [message]}))
    assert 0 < len(tokens) <= 4
    assert {token.unit.kind for token in tokens if token.unit} <= {"sentence"}


def test_a_list_is_not_a_sample(tiny_model: str) -> None:
    with pytest.raises(ConfigError, match="one sample, not a list"):
        next(OmniTracer(tiny_model).stream([{"messages": []}]))  # type: ignore[arg-type]
