"""A half-precision model whose replay runs in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from omnitrace_core.errors import ConfigError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.replay.widening import widened
from tests.core.ready_samples import one_of_each

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager"]


def make_tracer(path: str, dtype: Dtype = "bfloat16", attention: Attention = "sdpa") -> BatchTracer:
    return BatchTracer(
        ModelOptions(path=path, device="cpu", dtype=dtype, attention=attention),
        DecodeOptions(max_new_tokens=5),
        TraceOptions(precision="float32"),
    )


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> BatchTracer:
    return make_tracer(tiny_model)


@pytest.fixture(scope="module")
def sample() -> ReadySample:
    return one_of_each()["image"]


def test_generation_stays_in_the_models_precision(
    tiny_model: str, tracer: BatchTracer, sample: ReadySample
) -> None:
    plain = BatchTracer(
        ModelOptions(path=tiny_model, device="cpu", dtype="bfloat16"),
        DecodeOptions(max_new_tokens=5),
    )
    (wide,), (narrow,) = tracer.trace([sample]), plain.trace([sample])
    assert isinstance(wide, TokenTrace)
    assert isinstance(narrow, TokenTrace)
    assert wide.token_ids == narrow.token_ids
    assert wide.folds["attmean"].mass.tolist() != narrow.folds["attmean"].mass.tolist()


def test_the_model_is_restored_after_widening(tracer: BatchTracer, sample: ReadySample) -> None:
    decoder: Any = tracer.backend.decoder
    weights = tracer.backend.model.state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    tracer.trace([sample])
    with pytest.raises(ValueError, match="interrupted"), widened(decoder):
        raise ValueError("interrupted")
    assert not decoder._forward_pre_hooks
    assert decoder.config._attn_implementation == "sdpa"
    for name, tensor in tracer.backend.model.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, before[name])


def test_flash_attention_is_replaced_by_sdpa(tracer: BatchTracer) -> None:
    """Flash attention supports only half precision."""
    config: Any = tracer.backend.decoder.config
    config._attn_implementation = "flash_attention_2"
    try:
        with widened(tracer.backend.decoder):
            assert config._attn_implementation == "sdpa"
        assert config._attn_implementation == "flash_attention_2"
    finally:
        config._attn_implementation = "sdpa"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rows_equal_those_of_a_float32_model(
    tiny_model: str, sample: ReadySample, dtype: Dtype, attention: Attention
) -> None:
    """For both half-precision dtypes, also if the caller has autocast on."""
    half, whole = make_tracer(tiny_model, dtype, attention), make_tracer(tiny_model, "float32")
    weights = half.backend.model.state_dict()
    whole.backend.model.load_state_dict({name: held.float() for name, held in weights.items()})
    known = replace(sample, sample=replace(sample.sample, response_token_ids=(60, 61, 62)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = half.trace([known])
    (wanted,) = whole.trace([known])
    assert isinstance(found, TokenTrace)
    assert isinstance(wanted, TokenTrace)
    assert half.traced_by.dtype == f"{dtype}, replayed in float32"
    mass = wanted.folds["attmean"].mass
    assert np.abs(found.folds["attmean"].mass - mass).sum() < 0.01 * mass.sum()


def test_a_failing_replay_leaves_no_hook(
    tracer: BatchTracer, sample: ReadySample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("interrupted")

    monkeypatch.setattr("omnitrace_core.tracing.batch_tracer.replay", broken)
    (failed,) = tracer.trace([sample])
    assert "interrupted" in str(failed)
    decoder = tracer.backend.decoder
    assert not decoder._forward_pre_hooks
    ones = torch.ones(1, 2)
    with pytest.raises(RuntimeError, match="dtype"):
        torch.nn.functional.linear(ones, ones.bfloat16())


def test_a_widened_decoder_takes_token_ids(tracer: BatchTracer) -> None:
    decoder = tracer.backend.decoder
    ids = torch.tensor([[60, 61, 62]])
    with torch.no_grad(), widened(decoder):
        outputs = [decoder(ids), decoder(input_ids=ids)]
    for output in outputs:
        assert output.last_hidden_state.dtype == torch.float32
    assert torch.equal(outputs[0].last_hidden_state, outputs[1].last_hidden_state)


def test_float32_weights_need_no_second_prefill(
    tiny_model: str, sample: ReadySample, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_tracer(tiny_model, "float32")
    monkeypatch.setattr(whole.backend, "prefill", None)
    (trace,) = whole.trace([sample])
    assert isinstance(trace, TokenTrace)


def test_a_stream_in_float32_is_refused(tracer: BatchTracer, sample: ReadySample) -> None:
    with pytest.raises(ConfigError, match=r"trace\.precision"):
        next(tracer.stream(sample))
