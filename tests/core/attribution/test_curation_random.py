"""Curation of random cases against the slow reference, and in batches."""

from __future__ import annotations

import numpy as np
import pytest

from omnitrace_core.attribution.curation import (
    BUCKETS,
    CurationInput,
    curate,
    curate_many,
    unit_kinds,
)
from omnitrace_core.options import CurationOptions
from omnitrace_core.records import Float32, Fold, Segmentation, SourceUnit, Span
from tests.core.attribution.curation_cases import KINDS, TAGS, make_units, names
from tests.core.attribution.curation_reference import reference_curate

DEFAULT = CurationOptions()
PAPER = CurationOptions(preset="paper")
Drawn = tuple[Fold, tuple[SourceUnit, ...], Segmentation]


def random_case(rng: np.random.Generator) -> Drawn:
    """Any number of units of any kind, tokens in and out of spans, ties and zeros included."""
    n_gen, n_units = int(rng.integers(0, 40)), int(rng.integers(0, 14))
    units = make_units(*(KINDS[k][0] for k in rng.integers(len(KINDS), size=n_units)))
    shape = (n_gen, n_units + 3)
    rows = {
        "attention": lambda: rng.dirichlet(np.full(shape[1], 0.3), size=n_gen),
        "ties": lambda: rng.integers(0, 4, size=shape) / (8 * shape[1]),
        "sparse": lambda: rng.random(shape) * (rng.random(shape) < 0.3),
        "nothing": lambda: np.zeros(shape),
    }[str(rng.choice(["attention", "ties", "sparse", "nothing"], p=[0.4, 0.3, 0.25, 0.05]))]()
    values: Float32 = rows.reshape(shape).astype(np.float32)
    mass = values[:, :-3]
    peak = (mass * rng.choice([0.25, 0.5, 1.0], size=mass.shape)).astype(np.float32)
    tags = TAGS if rng.random() < 0.9 else ("PUNCT",)
    pos = tuple(str(tag) for tag in rng.choice(tags, size=n_gen))
    cuts = np.sort(rng.choice(n_gen + 1, size=2 * int(rng.integers(0, n_gen // 4 + 1))))
    spans = tuple(
        Span(i, "", 0, 0, int(start), int(end))
        for i, (start, end) in enumerate(cuts.reshape(-1, 2))
    )
    rest = (values[:, -k] for k in (3, 2, 1))
    return Fold(mass, peak, *rest), units, Segmentation(spans, pos)


def random_options(rng: np.random.Generator) -> CurationOptions:
    choices: dict[str, list[object]] = {
        "pools": ["joint", "per_modality"],
        "pool_min": [0.0, 0.05, 0.3],
        "coverage": [0.5, 0.85, 1.0],
        "p_min": [0.0, 0.07, 0.25],
        "run_min": [0.0, 0.1, 0.4],
        "alpha": [0.0, 0.5, 0.8, 1.0],
        "gamma": [0.0, 0.5, 1.0, 2.0],
        "min_confidence": [0.0, 0.2],
        "pos_weighting": [True, True, False],
        "confidence": [True, True, False],
        "runs": [True, True, False],
    }
    return CurationOptions.model_validate(
        {name: values[rng.integers(len(values))] for name, values in choices.items()}
    )


@pytest.mark.parametrize("projection", ["mass", "peak"])
@pytest.mark.parametrize("instructions", ["exclude", "include"])
def test_equals_the_reference_on_random_cases(projection: str, instructions: str) -> None:
    rng = np.random.default_rng([len(projection), len(instructions)])
    n_sources = n_unsupported = 0
    for _ in range(250):
        case, options = random_case(rng), random_options(rng)
        found = curate(*case, options, projection, instructions)  # type: ignore[arg-type]
        expected = reference_curate(*case, options, projection, instructions)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.outcome == theirs.outcome
            assert names(ours) == names(theirs)
            assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-12)
            assert ours.masses == pytest.approx(theirs.masses, abs=1e-12)
            for a, b in zip(ours.sources, theirs.sources, strict=True):
                assert (a.unit, a.rank) == (b.unit, b.rank)
                numbers = (a.mass, a.share, a.run, a.score)
                assert numbers == pytest.approx((b.mass, b.share, b.run, b.score), abs=1e-12)
            n_sources += len(ours.sources)
            n_unsupported += ours.outcome == "unsupported"
    assert n_sources > 500
    assert n_unsupported > 50


@pytest.mark.parametrize("seed", range(4))
def test_many_samples_at_once_equal_each_alone(seed: int) -> None:
    rng = np.random.default_rng([3, seed])
    cases, options = [random_case(rng) for _ in range(40)], random_options(rng)
    found = curate_many([curation_input(*case) for case in cases], options, "peak")
    alone = [result for case in cases for result in curate(*case, options, "peak")]
    assert len(alone) > 50
    assert found.supported.tolist() == [result.outcome == "supported" for result in alone]
    assert found.confidence.tolist() == [result.confidence for result in alone]
    assert found.masses.tolist() == [list(result.masses.values()) for result in alone]
    chosen, sources = found.chosen, [source for result in alone for source in result.sources]
    assert chosen.n_sources.tolist() == [len(result.sources) for result in alone]
    columns = (chosen.unit, chosen.mass, chosen.share, chosen.run, chosen.score)
    for row, source in zip(zip(*columns, strict=True), sources, strict=True):
        assert row == (source.unit_id, source.mass, source.share, source.run, source.score)


def curation_input(
    fold: Fold, units: tuple[SourceUnit, ...], segmentation: Segmentation
) -> CurationInput:
    kinds = unit_kinds([unit.kind for unit in units], [unit.modality for unit in units])
    return CurationInput(fold, kinds, segmentation)


def test_no_samples() -> None:
    for options in (DEFAULT, PAPER):
        found = curate_many([], options)
        assert (len(found.supported), found.masses.shape, len(found.chosen.unit)) == (0, (0, 8), 0)


def test_masses_add_up_and_spans_do_not_depend_on_each_other() -> None:
    rng = np.random.default_rng(5)
    units = make_units(*(kind for kind, _ in KINDS))
    rows = rng.dirichlet(np.full(len(units) + 3, 0.3), size=60).astype(np.float32)
    fold = Fold(rows[:, :-3], rows[:, :-3], rows[:, -3], rows[:, -2], rows[:, -1])
    pos = tuple(str(tag) for tag in rng.choice(TAGS, size=60))
    spans = tuple(Span(i, "", 0, 0, 7 * i, 7 * i + 6) for i in range(8))
    whole = curate(fold, units, Segmentation(spans, pos), PAPER)
    for span, result in zip(spans, whole, strict=True):
        assert tuple(result.masses) == BUCKETS
        assert sum(result.masses.values()) == pytest.approx(1, abs=1e-5)
        assert curate(fold, units, Segmentation((span,), pos), PAPER) == (result,)


def test_stored_traces_give_the_same_bytes() -> None:
    rng = np.random.default_rng(6)
    (fold, units, segmentation) = next(
        case for case in iter(lambda: random_case(rng), None) if len(case[2].spans) > 3
    )
    arrays = (fold.mass, fold.peak, fold.markup, fold.generated, fold.uncovered)
    stored = Fold(*(np.frombuffer(a.tobytes(), dtype=a.dtype).reshape(a.shape) for a in arrays))
    transposed = Fold(*(np.asfortranarray(a) for a in arrays))
    first = curate(fold, units, segmentation, DEFAULT)
    assert curate(stored, units, segmentation, DEFAULT) == first
    assert curate(transposed, units, segmentation, DEFAULT) == first
