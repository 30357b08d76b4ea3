"""attodds follows one make of decoder, and says so of any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnitrace_core.errors import BackendError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.replay.readout import norm_scale
from omnitrace_core.tracing.replay.run import check_layers
from omnitrace_core.tracing.signals import LayerView, Signal
from tests.core.ready_samples import one_of_each


@pytest.fixture
def tracer(tiny_model: str) -> BatchTracer:
    return BatchTracer(
        ModelOptions(path=tiny_model, device="cpu"),
        DecodeOptions(max_new_tokens=3),
        TraceOptions(signals=("attodds",)),
    )


def test_the_scale_is_that_of_the_norm_even_at_zeros() -> None:
    norm = torch.nn.RMSNorm(16, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, 16))
    given = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    given[:, :, ::5] = 0
    wanted = norm.weight * given.square().mean(-1, keepdim=True).rsqrt()
    with torch.no_grad():
        found = norm_scale(norm, given, norm(given))
    torch.testing.assert_close(found, wanted.detach(), atol=1e-5, rtol=1e-4)


def test_another_norm_is_refused(tracer: BatchTracer) -> None:
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
def test_what_is_added_must_be_what_attention_gives(tracer: BatchTracer, make: str) -> None:
    decoder: Any = tracer.backend.decoder
    check_layers(decoder, tracer.signals)
    if make == "normed":
        decoder.layers[0].post_feedforward_layernorm = torch.nn.Identity()
    else:
        decoder.config.residual_multiplier = 0.22
    with pytest.raises(BackendError, match="attodds"):
        check_layers(decoder, tracer.signals)
    check_layers(decoder, {"attmean": Signal(lambda view: None)})


def test_only_signals_that_ask_are_told() -> None:
    view = LayerView(0, 1, 1, torch.zeros, torch.zeros)
    with pytest.raises(BackendError, match="odds=True"):
        _ = view.odds_effect


def test_a_signed_signal_is_cut_at_zero_after_all_layers(tracer: BatchTracer) -> None:
    """What one layer takes away, another may have given."""

    def up_and_down(view: LayerView) -> torch.Tensor:
        sign = 1.0 if view.layer == 0 else -0.25
        return sign * view.attention.mean(dim=1)

    def down(view: LayerView) -> torch.Tensor:
        return -view.attention.mean(dim=1)

    found = {}
    for name, rows in (("both", up_and_down), ("none", down)):
        tracer.signals = {"attodds": Signal(rows, signed=True)}
        (trace,) = tracer.trace([one_of_each()["text"]])
        assert isinstance(trace, TokenTrace)
        found[name] = trace.folds["attodds"].mass
    assert found["both"].max() > 0
    assert found["both"].min() >= 0
    assert found["none"].max() == 0
