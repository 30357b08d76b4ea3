"""The tap changes one decoder only, restores it, refuses what it cannot trace, and saves memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from omnitrace_core.backends.base import Backend
from omnitrace_core.errors import BackendError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.replay import tapped_attention
from omnitrace_core.tracing.replay.decoder_replay import check_layers, replay
from omnitrace_core.tracing.replay.tapped_attention import TAPPED, tapped
from omnitrace_core.tracing.signals import SIGNALS, Signal
from tests.core.ready_samples import image, one_of_each, ready


def make_tracer(path: str, **options: Any) -> BatchTracer:
    signals = options.pop("signals", ("attmean", "attraw", "attgrads", "attnorm"))
    return BatchTracer(
        ModelOptions(path=path, device="cpu", **options),
        DecodeOptions(max_new_tokens=6),
        TraceOptions(signals=signals),
    )


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> BatchTracer:
    return make_tracer(tiny_model)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_only_the_decoder_is_switched_and_it_is_restored(tiny_model: str, attention: str) -> None:
    tracer = make_tracer(tiny_model, attention=attention)
    model: Any = tracer.backend.model
    configs = [model.model.visual.config, model.model.audio_tower.config]
    inside: list[str] = []

    def fail_while_tapped() -> None:
        with tapped(tracer.backend.decoder):
            inside.append(model.model.language_model.config._attn_implementation)
            inside.extend(config._attn_implementation for config in configs)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_while_tapped()
    assert inside == [TAPPED, attention, attention]
    assert model.model.language_model.config._attn_implementation == attention


def test_two_models_in_one_process_do_not_interfere(tracer: BatchTracer, tiny_model: str) -> None:
    other = make_tracer(tiny_model, signals=("attmean",))
    sample = ready([image(1), "What is this?"])
    (alone,) = other.trace([sample])
    with tapped(tracer.backend.decoder):
        (beside,) = other.trace([sample])
    assert isinstance(alone, TokenTrace)
    assert isinstance(beside, TokenTrace)
    assert alone.token_ids == beside.token_ids
    assert (alone.folds["attmean"].mass == beside.folds["attmean"].mass).all()


def test_a_failing_replay_leaves_the_model_as_it_was(
    tracer: BatchTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(view: object) -> None:
        raise RuntimeError("a signal failed")

    monkeypatch.setitem(tracer.signals, "attmean", Signal(broken))
    (failed,) = tracer.trace([ready(["Hello there."])])
    assert "a signal failed" in str(failed)
    monkeypatch.setitem(tracer.signals, "attmean", SIGNALS["attmean"])
    config: Any = tracer.backend.decoder.config
    assert config._attn_implementation == "sdpa"
    (trace,) = tracer.trace([ready(["Hello there."])])
    assert isinstance(trace, TokenTrace)


def test_gradients_are_on_or_off_as_before(tracer: BatchTracer) -> None:
    sample = ready(["Hello there."])
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            before = torch.is_grad_enabled()
            (trace,) = tracer.trace([sample])
            assert torch.is_grad_enabled() == before
        assert isinstance(trace, TokenTrace), mode
        assert trace.folds["attgrads"].mass.any()
    assert all(parameter.grad is None for parameter in tracer.backend.model.parameters())


def test_the_tapped_attention_needs_a_replay(tracer: BatchTracer) -> None:
    backend: Backend = tracer.backend
    with tapped(backend.decoder), pytest.raises(BackendError, match="outside a replay"):
        backend.prefill(backend.prepare([ready(["Hello there."])]))


def test_attention_without_its_mask_is_refused(
    tracer: BatchTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers passes no mask if a name has an attention function but no mask function."""
    from transformers import AttentionMaskInterface

    tapped_attention.register_tapped_attention()
    monkeypatch.setattr(tapped_attention, "register_tapped_attention", lambda: None)
    monkeypatch.delitem(AttentionMaskInterface._global_mapping, TAPPED)
    with pytest.raises(BackendError, match="padding would be attended to"):
        tracer.trace([ready(["Hello there."]), ready(["Hello, and a longer text. Go on."])])


def test_layers_without_attention_are_refused(
    tracer: BatchTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ["full_attention", "linear_attention", "full_attention"]
    monkeypatch.setattr(tracer.backend.decoder.config, "layer_types", kinds)
    with pytest.raises(BackendError, match="linear_attention"):
        check_layers(tracer.backend.decoder, tracer.signals)


class LargestTensor(TorchDispatchMode):
    """Records the largest tensor that any operation returns, and the largest [B, H, c, K] rows."""

    def __init__(self, heads: int, n_prompt: int) -> None:
        super().__init__()
        self.bytes = 0
        self.shape: tuple[int, ...] = ()
        self.heads, self.n_prompt = heads, n_prompt
        self.rows_bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if not isinstance(tensor, torch.Tensor):
                continue
            if tensor.nbytes > self.bytes:
                self.bytes, self.shape = tensor.nbytes, tuple(tensor.shape)
            if (
                tensor.ndim == 4
                and tensor.shape[1] == self.heads
                and tensor.shape[3] >= self.n_prompt
            ):
                self.rows_bytes = max(self.rows_bytes, tensor.nbytes)
        return result


@pytest.mark.parametrize("signals", [("attmean",), ("attmean", "attodds"), ("attboth", "attmean")])
def test_no_large_array_is_allocated(tiny_model: str, signals: tuple[str, ...]) -> None:
    """Of T prompt positions and n tokens: no array of T x T, L x H x T x n or H x n x T."""
    words = " ".join(f"word{index}" for index in range(400))
    sample = ready([words, "What is said?"], response=" ".join(["lamp"] * 60))
    tracer = make_tracer(tiny_model, signals=signals)
    backend = tracer.backend
    prepared = backend.prepare([sample])
    prompt = backend.prefill(prepared)
    ids = tuple(backend.tokenizer(sample.sample.response)["input_ids"])
    config: Any = backend.decoder.config
    n, slots = len(ids), prepared.input_ids.shape[1] + len(ids)
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    budget = 4 * 4 * heads * slots * 3  # four arrays of three queries at a time
    watch = LargestTensor(heads, prepared.input_ids.shape[1])
    with watch:
        for replayed in replay(
            backend.decoder, backend.output_head, prompt, [ids], tracer.signals, budget
        ):
            assert replayed.rows["attmean"].shape[-1] <= slots
    of_cache = 4 * heads * slots * width  # keys and values, repeated for SDPA
    output_head: Any = backend.output_head
    of_head = 4 * n * output_head.weight.shape[0]
    assert watch.bytes <= max(budget, of_cache, of_head), watch.shape
    assert budget / 8 < watch.rows_bytes <= budget / 4
    assert watch.bytes < 4 * heads * n * slots
    assert watch.bytes < 4 * slots * slots


def test_all_signals_share_one_pass(tracer: BatchTracer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = tracer.backend.decoder.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append("omnitrace_tap" in kwargs)
        return forward(*args, **kwargs)

    monkeypatch.setattr(tracer.backend.decoder, "forward", counted)
    samples = list(one_of_each().values())[:2]
    tracer.trace(samples)
    assert calls.count(True) == 1


@pytest.mark.slow
def test_a_slice_is_freed_before_the_next_is_computed(tiny_model: str) -> None:
    """The rows of two slices never exist at once if the caller drops each slice."""
    import gc
    import weakref

    tracer = make_tracer(tiny_model, signals=("attmean", "attgrads"))
    backend = tracer.backend
    prepared = backend.prepare([ready(["The lamp is red. It stands in the hall."])])
    slices = replay(
        backend.decoder,
        backend.output_head,
        backend.prefill(prepared),
        [tuple(range(60, 90))],
        tracer.signals,
        rows_bytes=2000,
    )
    seen: list[weakref.ref[torch.Tensor]] = []
    for replayed in slices:
        gc.collect()
        assert [ref() for ref in seen] == [None] * len(seen)
        seen.extend(weakref.ref(rows) for rows in replayed.rows.values())
        del replayed
    assert len(seen) > 10


def test_rows_are_float32_under_autocast(tracer: BatchTracer) -> None:
    sample = ready([image(1), "What is this?"], response="A red lamp in the hall.")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (trace,) = tracer.trace([sample])
    assert isinstance(trace, TokenTrace)
    fold = trace.folds["attmean"]
    total = fold.mass.sum(1) + fold.markup + fold.generated
    assert abs(total - 1).max() < 1e-5
