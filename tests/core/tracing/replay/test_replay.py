"""The replay equals eager attention: single samples and batches, generated and known responses."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest
import torch

from omnitrace_core.errors import SampleError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.folding import fold_rows
from omnitrace_core.tracing.replay.decoder_replay import replay
from omnitrace_core.units.assign import assign_units
from tests.core.oracle import ROWS, TOLERANCE, EagerOracle, slow_fold
from tests.core.ready_samples import image, one_of_each, ready, sound, video

SIGNALS = tuple(ROWS)
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
    """Every sample traced in as few batches as possible, so most rows are padded."""
    traces = tracer.trace(list(samples.values()))
    assert not [trace for trace in traces if isinstance(trace, SampleError)]
    return dict(zip(samples, traces, strict=True))  # type: ignore[arg-type]


def assert_equals_eager(oracle: EagerOracle, sample: ReadySample, trace: TokenTrace) -> None:
    eager, unit_index = oracle.forward(sample, trace.token_ids)
    for name, fold in trace.folds.items():
        rows = ROWS[name](eager)
        expected = slow_fold(rows, unit_index, len(sample.units))
        tolerance = TOLERANCE.get(name, 1e-5) * rows.max(dim=1).values.numpy()
        for field in dataclasses.fields(expected):
            wanted, got = getattr(expected, field.name), getattr(fold, field.name)
            assert got.dtype == np.float32
            limit = tolerance[:, None] if wanted.ndim == 2 else tolerance
            assert (np.abs(wanted - got) <= limit).all(), (name, field.name)
        np.testing.assert_array_equal(fold.mass.argmax(axis=1), expected.mass.argmax(axis=1))
    np.testing.assert_allclose(trace.logprobs, eager.logprobs.numpy(), atol=1e-4)


def with_ids(item: ReadySample, token_ids: tuple[int, ...]) -> ReadySample:
    """The same sample with a known response."""
    sample = dataclasses.replace(item.sample, response_token_ids=token_ids)
    return dataclasses.replace(item, sample=sample)


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
    for name in ("attmean", "attraw"):
        fold = batched[kind].folds[name]
        total = fold.mass.sum(axis=1) + fold.markup + fold.uncovered + fold.generated
        np.testing.assert_allclose(total, 1.0, atol=1e-4)
        assert fold.generated[0] == 0.0
        assert (fold.peak <= fold.mass + 1e-7).all()


def test_known_ids_are_replayed_like_generated_ones(
    tracer: BatchTracer, samples: dict[str, ReadySample], batched: dict[str, TokenTrace]
) -> None:
    known = [with_ids(item, batched[kind].token_ids) for kind, item in samples.items()]
    for kind, trace in zip(samples, tracer.trace(known), strict=True):
        assert isinstance(trace, TokenTrace)
        assert trace.finish_reason == "given"
        assert trace.token_ids == batched[kind].token_ids
        for name in SIGNALS:
            np.testing.assert_allclose(
                trace.folds[name].mass, batched[kind].folds[name].mass, atol=1e-6
            )
        np.testing.assert_allclose(trace.logprobs, batched[kind].logprobs, atol=1e-4)


def test_known_texts_of_different_lengths_in_one_batch(
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


def test_rows_do_not_depend_on_the_memory_budget(
    tracer: BatchTracer,
    samples: dict[str, ReadySample],
    batched: dict[str, TokenTrace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one query per block and one token per slice of the response."""
    monkeypatch.setattr(
        "omnitrace_core.tracing.batch_tracer.replay",
        lambda decoder, head, prompt, responses, signals, rows_bytes: replay(
            decoder, head, prompt, responses, signals, 1
        ),
    )
    for kind, trace in zip(samples, tracer.trace(list(samples.values())), strict=True):
        assert isinstance(trace, TokenTrace)
        for name in SIGNALS:
            wanted = batched[kind].folds[name].mass
            np.testing.assert_allclose(trace.folds[name].mass, wanted, atol=1e-6, rtol=1e-4)
        np.testing.assert_allclose(trace.logprobs, batched[kind].logprobs, atol=1e-5)


# Limits for the mean difference of rows, relative to their mean, by the precision of the replay.
# With "model", the difference is the rounding of the model; attgrads sums signed terms, which
# doubles it. With "float32", only the rounding of the media towers remains.
BFLOAT16_DIFFERENCE = {
    "model": {
        **{"attmean": 0.01, "attraw": 0.01, "attnorm": 0.01},
        **{"attgrads": 0.03, "attodds": 0.05, "attboth": 0.05},
    },
    "float32": dict.fromkeys(SIGNALS, 0.01),
}


@pytest.mark.parametrize("precision", ["model", "float32"])
def test_bfloat16_weights_keep_float32_rows(
    tiny_model: str,
    samples: dict[str, ReadySample],
    batched: dict[str, TokenTrace],
    precision: Literal["model", "float32"],
) -> None:
    options = TraceOptions(signals=SIGNALS, store="positions", precision=precision)
    half = BatchTracer(ModelOptions(path=tiny_model, device="cpu", dtype="bfloat16"), trace=options)
    whole = BatchTracer(ModelOptions(path=tiny_model, device="cpu"), trace=options)
    # The same weights: those of the bfloat16 model, converted to float32.
    whole.backend.model.load_state_dict(
        {name: tensor.float() for name, tensor in half.backend.model.state_dict().items()}
    )
    known = [with_ids(samples[kind], batched[kind].token_ids) for kind in KINDS]
    pairs = list(zip(half.trace(known), whole.trace(known), strict=True))
    for name in SIGNALS:
        difference = total = 0.0
        for low, high in pairs:
            assert isinstance(low, TokenTrace)
            assert isinstance(high, TokenTrace)
            assert low.positions is not None
            assert high.positions is not None
            rows, wanted = low.positions.rows[name], high.positions.rows[name]
            assert rows.dtype == np.float32
            difference += float(np.abs(rows - wanted).sum())
            total += float(wanted.sum())
        assert difference / total < BFLOAT16_DIFFERENCE[precision][name], name
    for trace, _ in pairs:
        assert isinstance(trace, TokenTrace)
        fold = trace.folds["attmean"]
        np.testing.assert_allclose(
            fold.mass.sum(1) + fold.markup + fold.uncovered + fold.generated, 1.0, atol=1e-4
        )


def test_positions_fold_to_the_same_masses(
    tiny_model: str, samples: dict[str, ReadySample], batched: dict[str, TokenTrace]
) -> None:
    keeping = BatchTracer(
        ModelOptions(path=tiny_model, device="cpu"),
        DecodeOptions(max_new_tokens=9),
        TraceOptions(signals=SIGNALS, store="positions"),
    )
    for kind, trace in zip(samples, keeping.trace(list(samples.values())), strict=True):
        assert isinstance(trace, TokenTrace)
        assert trace.positions is not None
        index = torch.from_numpy(assign_units(trace.positions.prompt, samples[kind].units))
        for name, rows in trace.positions.rows.items():
            assert rows.shape == (len(trace.token_ids), trace.n_prompt_tokens)
            again = fold_rows(torch.from_numpy(rows), index, len(samples[kind].units))
            np.testing.assert_array_equal(again.mass, trace.folds[name].mass)
            np.testing.assert_array_equal(again.peak, trace.folds[name].peak)
        np.testing.assert_array_equal(
            trace.folds["attmean"].mass, batched[kind].folds["attmean"].mass
        )


def test_sound_of_one_of_two_videos_follows_as_audio(
    tracer: BatchTracer, oracle: EagerOracle
) -> None:
    sample = ready([video(1), "and", video(2, with_sound=False), "Compare."])
    (trace,) = tracer.trace([sample])
    assert isinstance(trace, TokenTrace)
    assert any("only some videos have sound" in note for note in trace.notes)
    assert {unit.kind for unit in sample.units} >= {"sound_bin", "video_bin"}
    with_sound = [u.unit_id for u in sample.units if u.kind == "sound_bin"]
    assert (trace.folds["attmean"].mass[:, with_sound] > 0).all()
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
