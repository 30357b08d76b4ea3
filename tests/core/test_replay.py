"""The replay equals eager attention, alone and in left-padded batches, generated and given."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from omnitrace_core.backends.base import Backend
from omnitrace_core.batch_tracer import BatchTracer
from omnitrace_core.errors import BackendError, SampleError, UnknownName
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from omnitrace_core.replay import TAPPED, _Tap, fold_rows, tapped
from omnitrace_core.signals import SIGNALS as SIGNAL_TABLE
from omnitrace_core.signals import signal_weights
from tests.core.oracle import EagerOracle, slow_fold
from tests.core.samples import image, one_of_each, ready, sound, video

SIGNALS = ("attmean", "attraw")
KINDS = ("text", "image", "audio", "video", "silent", "mixed")


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> BatchTracer:
    options = ModelOptions(path=tiny_model, device="cpu")
    return BatchTracer(options, DecodeOptions(max_new_tokens=9), TraceOptions(signals=SIGNALS))


@pytest.fixture(scope="module")
def oracle(tracer: BatchTracer, tiny_model: str) -> EagerOracle:
    return EagerOracle(tracer.backend, tiny_model)


@pytest.fixture(scope="module")
def samples() -> dict[str, ReadySample]:
    return one_of_each()


@pytest.fixture(scope="module")
def batched(tracer: BatchTracer, samples: dict[str, ReadySample]) -> dict[str, TokenTrace]:
    """Every sample traced in as few batches as the tracer makes, so most rows are padded."""
    traces = tracer.trace(list(samples.values()))
    assert not [trace for trace in traces if isinstance(trace, SampleError)]
    return dict(zip(samples, traces, strict=True))  # type: ignore[arg-type]


def assert_equals_eager(oracle: EagerOracle, sample: ReadySample, trace: TokenTrace) -> None:
    attention, unit_index, logprobs = oracle.rows(sample, trace.token_ids)
    for name, fold in trace.folds.items():
        weights = signal_weights(name, *attention.shape[:2])
        rows = torch.einsum("lhtk,lh->tk", attention, weights)
        expected = slow_fold(rows, unit_index, len(sample.units))
        tolerance = 1e-5 * rows.max(dim=1).values.numpy()
        for field in dataclasses.fields(expected):
            wanted, got = getattr(expected, field.name), getattr(fold, field.name)
            assert got.dtype == np.float32
            limit = tolerance[:, None] if wanted.ndim == 2 else tolerance
            assert (np.abs(wanted - got) <= limit).all(), (name, field.name)
    np.testing.assert_allclose(trace.logprobs, logprobs.numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_padded_batch_equals_eager_alone(
    kind: str,
    oracle: EagerOracle,
    samples: dict[str, ReadySample],
    batched: dict[str, TokenTrace],
) -> None:
    assert len(batched[kind].token_ids) > 1
    assert_equals_eager(oracle, samples[kind], batched[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_alone_equals_batched(
    kind: str,
    tracer: BatchTracer,
    samples: dict[str, ReadySample],
    batched: dict[str, TokenTrace],
) -> None:
    (alone,) = tracer.trace([samples[kind]])
    assert isinstance(alone, TokenTrace)
    assert alone.token_ids == batched[kind].token_ids
    for name in SIGNALS:
        np.testing.assert_allclose(
            alone.folds[name].mass, batched[kind].folds[name].mass, atol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_mass_adds_up(kind: str, batched: dict[str, TokenTrace]) -> None:
    for fold in batched[kind].folds.values():
        total = fold.mass.sum(axis=1) + fold.markup + fold.generated
        np.testing.assert_allclose(total, 1.0, atol=1e-4)
        assert fold.generated[0] == 0.0
        assert (fold.peak <= fold.mass + 1e-7).all()


def test_generated_ids_given_back_replay_the_same(
    tracer: BatchTracer, samples: dict[str, ReadySample], batched: dict[str, TokenTrace]
) -> None:
    given = [
        dataclasses.replace(
            item,
            sample=dataclasses.replace(item.sample, response_token_ids=batched[kind].token_ids),
        )
        for kind, item in samples.items()
    ]
    for kind, trace in zip(samples, tracer.trace(given), strict=True):
        assert isinstance(trace, TokenTrace)
        assert trace.finish_reason == "given"
        assert trace.token_ids == batched[kind].token_ids
        for name in SIGNALS:
            np.testing.assert_allclose(
                trace.folds[name].mass, batched[kind].folds[name].mass, atol=1e-6
            )
        np.testing.assert_allclose(trace.logprobs, batched[kind].logprobs, atol=1e-4)


def test_given_text_of_unlike_lengths_in_one_batch(
    tracer: BatchTracer, oracle: EagerOracle
) -> None:
    samples = [
        ready(["Where is the lamp?"], response="It is in the hall, beside the door."),
        ready([image(1), "And this?"], response="A cat."),
        ready([sound(2, 1.0), "Heard?"], response="Yes."),
    ]
    for sample, trace in zip(samples, tracer.trace(samples), strict=True):
        assert isinstance(trace, TokenTrace)
        assert trace.response == sample.sample.response
        assert "".join(trace.tokens) == trace.response
        assert any("tokenized canonically" in note for note in trace.notes)
        assert_equals_eager(oracle, sample, trace)


def test_rows_are_the_same_however_few_are_alive(
    tracer: BatchTracer,
    samples: dict[str, ReadySample],
    batched: dict[str, TokenTrace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("omnitrace_core.replay.ROW_BUDGET", 1)
    for kind, trace in zip(samples, tracer.trace(list(samples.values())), strict=True):
        assert isinstance(trace, TokenTrace)
        for name in SIGNALS:
            wanted = batched[kind].folds[name].mass
            np.testing.assert_allclose(trace.folds[name].mass, wanted, atol=1e-6)
        np.testing.assert_allclose(trace.logprobs, batched[kind].logprobs, atol=1e-5)


def test_bfloat16_weights_keep_float32_rows(tiny_model: str) -> None:
    options = ModelOptions(path=tiny_model, device="cpu", dtype="bfloat16")
    half = BatchTracer(options, trace=TraceOptions(signals=SIGNALS))
    whole = BatchTracer(ModelOptions(path=tiny_model, device="cpu"), trace=half.options)
    # The same weights: those that bfloat16 can hold, in float32.
    whole.backend.model.load_state_dict(
        {name: tensor.float() for name, tensor in half.backend.model.state_dict().items()}
    )
    sample = ready([image(1), "What is this? Say it."], response="A red lamp in a hall.")
    (low,), (high,) = half.trace([sample]), whole.trace([sample])
    assert isinstance(low, TokenTrace)
    assert isinstance(high, TokenTrace)
    for name in SIGNALS:
        assert low.folds[name].mass.dtype == np.float32
        total = low.folds[name].mass.sum(1) + low.folds[name].markup + low.folds[name].generated
        np.testing.assert_allclose(total, 1.0, atol=1e-4)
        difference = np.abs(low.folds[name].mass - high.folds[name].mass).mean()
        assert difference / high.folds[name].mass.mean() < 0.02


def test_sliding_windows_are_refused(tracer: BatchTracer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tracer.backend.decoder.config, "layer_types", ["full_attention", "sliding_attention"]
    )
    with pytest.raises(BackendError, match="sliding-window"):
        _Tap(tracer.backend.decoder, torch.ones(1, 4), 1, SIGNALS)


def test_sound_beside_silent_videos_rides_along(tracer: BatchTracer, oracle: EagerOracle) -> None:
    sample = ready([video(1), "and", video(2, with_sound=False), "Compare."])
    (trace,) = tracer.trace([sample])
    assert isinstance(trace, TokenTrace)
    assert any("only some videos have sound" in note for note in trace.notes)
    assert {unit.kind for unit in sample.units} >= {"sound_bin", "video_bin"}
    sounding = [u.unit_id for u in sample.units if u.kind == "sound_bin"]
    assert (trace.folds["attmean"].mass[:, sounding] > 0).all()
    assert_equals_eager(oracle, sample, trace)


def test_attraw_alone_reads_only_the_last_layer(
    tiny_model: str, samples: dict[str, ReadySample], batched: dict[str, TokenTrace]
) -> None:
    alone = BatchTracer(
        ModelOptions(path=tiny_model, device="cpu"),
        DecodeOptions(max_new_tokens=9),
        TraceOptions(signals=("attraw",)),
    )
    (trace,) = alone.trace([samples["text"]])
    assert isinstance(trace, TokenTrace)
    np.testing.assert_allclose(
        trace.folds["attraw"].mass, batched["text"].folds["attraw"].mass, atol=1e-6
    )


def test_fold_of_known_rows() -> None:
    rows = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0], [0.1, 0.1, 0.2, 0.3, 0.3]])
    fold = fold_rows(rows, torch.tensor([-1, 0, 1, 1]), 3)
    np.testing.assert_allclose(fold.mass, [[0.2, 0.7, 0.0], [0.1, 0.5, 0.0]], atol=1e-7)
    np.testing.assert_allclose(fold.peak, [[0.2, 0.4, 0.0], [0.1, 0.3, 0.0]], atol=1e-7)
    np.testing.assert_allclose(fold.markup, [0.1, 0.1], atol=1e-7)
    np.testing.assert_allclose(fold.generated, [0.0, 0.3], atol=1e-7)


def test_the_switch_is_local_and_restored(tracer: BatchTracer) -> None:
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
    assert inside == [TAPPED, "sdpa", "sdpa"]
    assert model.model.language_model.config._attn_implementation == "sdpa"


def test_the_tapped_attention_needs_a_replay(tracer: BatchTracer) -> None:
    backend: Backend = tracer.backend
    with tapped(backend.decoder), pytest.raises(BackendError, match="outside a replay"):
        backend.prefill(backend.prepare([ready(["Hello there."])]))


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


def test_a_signal_may_need_the_models_real_shape(
    tiny_model: str, samples: dict[str, ReadySample], monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_layer(n_layers: int, n_heads: int) -> torch.Tensor:
        weights = torch.zeros(n_layers, n_heads)
        weights[1] = 1 / n_heads
        return weights

    monkeypatch.setitem(SIGNAL_TABLE, "second", second_layer)
    monkeypatch.setitem(SIGNAL_TABLE, "wrong", lambda n_layers, n_heads: torch.ones(1, 1))
    options = ModelOptions(path=tiny_model, device="cpu")
    tracer = BatchTracer(
        options, DecodeOptions(max_new_tokens=3), TraceOptions(signals=("second",))
    )
    (trace,) = tracer.trace([samples["text"]])
    assert isinstance(trace, TokenTrace)
    broken = BatchTracer(options, DecodeOptions(max_new_tokens=3), TraceOptions(signals=("wrong",)))
    with pytest.raises(BackendError, match="sum to 1"):
        broken.trace([samples["text"]])
