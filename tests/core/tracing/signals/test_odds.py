"""`attodds` supports decoders with an RMS norm, and refuses others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnitrace_core.errors import BackendError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.replay.decoder_replay import check_layers
from omnitrace_core.tracing.replay.readout import norm_scale
from omnitrace_core.tracing.signals import LayerView, Signal
from tests.core.ready_samples import one_of_each


@pytest.fixture
def tracer(tiny_model: str) -> BatchTracer:
    return BatchTracer(
        ModelOptions(path=tiny_model, device="cpu"),
        DecodeOptions(max_new_tokens=3),
        TraceOptions(signals=("attodds",)),
    )


def test_norm_scale_equals_the_formula_also_for_zeros() -> None:
    norm = torch.nn.RMSNorm(16, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, 16))
    norm_input = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    norm_input[:, :, ::5] = 0
    wanted = norm.weight * norm_input.square().mean(-1, keepdim=True).rsqrt()
    with torch.no_grad():
        found = norm_scale(norm, norm_input, norm(norm_input))
    torch.testing.assert_close(found, wanted.detach(), atol=1e-5, rtol=1e-4)


def test_a_norm_that_is_not_rms_is_refused(tracer: BatchTracer) -> None:
    layer_norm = torch.nn.LayerNorm(128)
    with torch.no_grad():
        layer_norm.bias.fill_(0.5)
    tracer.backend.decoder.norm = layer_norm
    with pytest.raises(BackendError, match="LayerNorm, is not one"):
        tracer.trace([one_of_each()["text"]])


def test_a_decoder_without_a_last_norm_is_refused() -> None:
    hidden = torch.ones(1, 2, 4)
    with pytest.raises(BackendError, match="does not have"):
        norm_scale(None, None, hidden)


@pytest.mark.parametrize("make", ["normed", "scaled"])
def test_attention_output_that_is_scaled_or_normed_is_refused(
    tracer: BatchTracer, make: str
) -> None:
    decoder: Any = tracer.backend.decoder
    check_layers(decoder, tracer.signals)
    if make == "normed":
        decoder.layers[0].post_feedforward_layernorm = torch.nn.Identity()
    else:
        decoder.config.residual_multiplier = 0.22
    with pytest.raises(BackendError, match="attodds"):
        check_layers(decoder, tracer.signals)
    check_layers(decoder, {"attmean": Signal(lambda view: None)})


def test_odds_effect_needs_a_signal_made_for_it() -> None:
    view = LayerView(0, 1, 1, torch.zeros, torch.zeros)
    with pytest.raises(BackendError, match="odds=True"):
        _ = view.odds_effect


def test_a_signed_signal_is_clipped_at_zero_after_all_layers(tracer: BatchTracer) -> None:
    """Negative values of one layer lower the positive values of another before clipping."""

    def positive_then_negative(view: LayerView) -> torch.Tensor:
        sign = 1.0 if view.layer == 0 else -0.25
        return sign * view.attention.mean(dim=1)

    def negative(view: LayerView) -> torch.Tensor:
        return -view.attention.mean(dim=1)

    found = {}
    for name, rows in (("both", positive_then_negative), ("none", negative)):
        tracer.signals = {"attodds": Signal(rows, signed=True)}
        (trace,) = tracer.trace([one_of_each()["text"]])
        assert isinstance(trace, TokenTrace)
        found[name] = trace.folds["attodds"].mass
    assert found["both"].max() > 0
    assert found["both"].min() >= 0
    assert found["none"].max() == 0
