"""The studies of the planted world: variants of the gradient, learned heads, compared models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import planted_heads, planted_paths, planted_runs
from benchmarks.planted import load_tracer
from benchmarks.planted_cases import Case, answer
from benchmarks.planted_paths import Variant, forward
from omnitrace_core.options import SpanOptions
from omnitrace_core.text.spans import Segmenter
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.folding import fold_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tracer() -> BatchTracer:
    return load_tracer("omnitrace-tiny", ["attodds", "attmean", "attboth"], "float32")


@pytest.fixture(scope="module")
def case(tracer: BatchTracer) -> Case:
    return next(answer(tracer, Segmenter(SpanOptions()), "conflict", 3, "paths", 1))


def test_the_direct_variant_equals_the_signal(tracer: BatchTracer, case: Case) -> None:
    """Autograd through the whole decoder gives the same rows as the closed form of the replay."""
    index = tracer.backend.prepare([case.ready]).unit_index[0]
    rows = planted_paths.rows_of(tracer.backend, case)
    for name, signal in (
        (str(Variant()), "attodds"),
        ("attmean", "attmean"),
        ("attmean and odds, mean of shares", "attboth"),
    ):
        fold = fold_rows(rows[name], index, len(case.ready.units))
        expected = case.trace.folds[signal].mass
        largest = expected.max()
        np.testing.assert_allclose(fold.mass, expected, atol=2e-5 * largest, rtol=1e-4)


def test_each_variant_of_the_gradient_differs_where_it_should(
    tracer: BatchTracer, case: Case
) -> None:
    effects = {
        variant: torch.stack(forward(tracer.backend, case, variant).effects)
        for variant in (
            Variant(),
            Variant(mlps=True),
            Variant(mlps=True, queries=True),
            Variant(norms=True),
        )
    }
    direct, mlps, queries, norms = effects.values()
    # Between the last layer's attention and the output there is only that layer's MLP.
    assert not torch.allclose(direct[-1], mlps[-1], rtol=1e-3, atol=1e-5)
    assert torch.allclose(mlps[-1], queries[-1], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(mlps[0], queries[0], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(direct, norms, rtol=1e-3, atol=1e-5)
    before = tracer.backend.decoder.config._attn_implementation  # type: ignore[union-attr]
    assert before != "eager", "the model keeps its attention"


def test_the_informative_head_is_learned() -> None:
    """Of four heads only the third always attends to the planted unit."""
    generator = torch.Generator().manual_seed(0)
    lessons = []
    for _ in range(30):
        mass = torch.rand(4, 5, generator=generator)
        planted = torch.zeros(1, 5, dtype=torch.bool)
        planted[0, int(torch.randint(5, (1,), generator=generator))] = True
        mass[2] = 0.9 * planted[0] + 0.02
        lessons.append((mass, planted))
    weights, before, after = planted_heads.learn(lessons)
    assert weights.sum() == pytest.approx(1.0)
    assert int(weights.argmax()) == 2
    assert weights[2] > 0.9
    assert after < before / 2


def test_learned_weights_work_as_a_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "heads.json"
    planted_heads.main([str(dest), "--per-task", "1"])
    assert "log loss" in capsys.readouterr().out
    tracer = load_tracer("omnitrace-tiny", [f"heads:{dest}"], "float32")
    assert np.sum(json.loads(dest.read_text())) == pytest.approx(1.0, abs=1e-5)
    (found,) = answer(tracer, Segmenter(SpanOptions()), "text_where", 3, "heads", 1)
    assert found.trace.folds[f"heads:{dest}"].mass.sum() > 0


def test_models_are_compared_in_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"text_where": {"samples": 40, "exact": 0.975, "sentences": 80, "right": 1.0}}
    few = {"text_where": {"samples": 40, "exact": 0.1, "sentences": 80, "right": 0.1}}
    right = {"attodds mass joint": {"text": [0.9, 0.85, 0.95], "text_where": [0.9, 0.85, 0.95]}}
    for name, found in (("seed-0", answers), ("seed-1", few)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"answers": found, "right": right}))
    planted_runs.main([str(tmp_path / "seed-0.json"), str(tmp_path / "seed-1.json")])
    lines = capsys.readouterr().out.splitlines()
    assert "| text_where | 98% | 10% |" in lines
    assert "| attodds mass joint | seed-0 | 0.90 [0.85 0.95] |  |  |  |  |" in lines
    assert "| attodds mass joint | seed-1 |  |  |  |  |  |" in lines
