"""Curation against hand-computed examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omnitrace_core.attribution.curation import curate, pos_weights
from omnitrace_core.errors import TraceError
from omnitrace_core.options import CurationOptions
from omnitrace_core.records import Fold, Segmentation, Span, UnitKind
from tests.core.attribution.curation_cases import make_units, names

DEFAULT = CurationOptions()
PAPER = CurationOptions(preset="paper")

SENTENCE: tuple[UnitKind, ...] = ("sentence",)
IMAGE: tuple[UnitKind, ...] = ("image",)


def make_fold(rows: list[list[float]]) -> Fold:
    """A fold with these masses by token and unit; the rest to 1 is on markup; peak is mass / 2."""
    mass = np.array(rows, dtype=np.float32)
    markup = (1 - mass.sum(axis=1)).astype(np.float32)
    peak = (mass / 2).astype(np.float32)
    return Fold(mass, peak, markup, np.zeros(len(mass), dtype=np.float32))


def one_span(*pos: str) -> Segmentation:
    return Segmentation((Span(0, "a span", 0, 6, 0, len(pos)),), pos)


def altered(options: CurationOptions, **changes: object) -> CurationOptions:
    return CurationOptions.model_validate(options.model_dump() | changes)


def test_hand_computed_example() -> None:
    # Votes 1 * .5² = .25 for unit 0, .9 * .4² = .144 for unit 1, 0 for the full stop's unit 1,
    # 1 * .6² = .36 for unit 0. Total .754. Unit 0: p = .61/.754, longest run .36/.754.
    fold = make_fold([[0.5, 0.25], [0.25, 0.4], [0.1, 0.7], [0.6, 0.2]])
    units = make_units("sentence", "image")
    (result,) = curate(fold, units, one_span("NOUN", "VERB", "PUNCT", "NUM"), DEFAULT)

    first, second = result.sources
    assert (first.unit, first.rank, second.unit, second.rank) == (units[0], 1, units[1], 2)
    assert first.share == pytest.approx(0.61 / 0.754, rel=1e-6)
    assert first.run == pytest.approx(0.36 / 0.754, rel=1e-6)
    assert first.score == pytest.approx((0.8 * 0.61 + 0.2 * 0.36) / 0.754, rel=1e-6)
    assert first.mass == pytest.approx((0.5 + 0.9 * 0.25 + 0.6) / 2.9, rel=1e-6)
    assert second.share == second.run == pytest.approx(0.144 / 0.754, rel=1e-6)
    assert result.outcome == "supported"
    assert result.confidence == pytest.approx((0.5 + 0.9 * 0.4 + 0.6) / 2.9, rel=1e-6)
    assert result.masses["text"] == pytest.approx(first.mass)
    assert result.masses["markup"] == pytest.approx((0.25 + 0.9 * 0.35 + 0.2) / 2.9, rel=1e-6)


def test_weights_are_the_papers() -> None:
    tags = ["NOUN", "PROPN", "NUM", "VERB", "ADJ", "ADV", "AUX", "PRON", "DET", "ADP", "CCONJ"]
    tags += ["SCONJ", "PART", "PUNCT", "SPACE", "INTJ", "X", "", "ANY"]
    expected = [1, 1, 1, 0.9, 0.8, 0.5, *[0.1] * 7, 0, 0, 0.3, 0.3, 0.3, 1]
    assert pos_weights(tags).tolist() == expected
    assert pos_weights(tags, weighted=False).tolist() == [1.0] * len(tags)


def test_sources_are_ranked_by_mass_not_by_score() -> None:
    # Unit 0 wins two tokens narrowly, unit 1 one token; on the whole unit 1 has more mass.
    fold = make_fold([[0.4, 0.39], [0.4, 0.39], [0.0, 0.6]])
    units = make_units("sentence", "sentence")
    (result,) = curate(fold, units, one_span("NOUN", "NOUN", "NOUN"), CurationOptions(gamma=0))
    assert result.sources[0].score < result.sources[1].score
    assert names(result) == [1, 0]


def test_ties_go_to_the_lower_unit() -> None:
    fold = make_fold([[0.3, 0.3, 0.3]])
    (result,) = curate(fold, make_units("sentence", "image", "image"), one_span("NOUN"), DEFAULT)
    assert names(result) == [0]

    # Equal scores and equal masses: both are named, the lower unit first.
    fold = make_fold([[0.0, 0.4], [0.4, 0.0]])
    (result,) = curate(fold, make_units("sentence", "sentence"), one_span("NOUN", "NOUN"), DEFAULT)
    assert names(result) == [0, 1]


def test_sources_stop_at_coverage() -> None:
    fold = make_fold([[0.5, 0, 0]] * 6 + [[0, 0.5, 0]] * 3 + [[0, 0, 0.5]])
    units, segmentation = make_units(*SENTENCE * 3), one_span(*["NOUN"] * 10)
    (most,) = curate(fold, units, segmentation, CurationOptions(coverage=0.9))
    (everything,) = curate(fold, units, segmentation, CurationOptions(coverage=0.91))
    assert (names(most), names(everything)) == ([0, 1], [0, 1, 2])


def test_a_small_unit_needs_a_run() -> None:
    # Of twenty equal votes unit 1 gets one: p = r = .05, below p_min and run_min.
    rows = [[0.5, 0.0]] * 10 + [[0.0, 0.5]] + [[0.5, 0.0]] * 9
    units, segmentation = make_units("image", "image"), one_span(*["NOUN"] * 20)
    everything = CurationOptions(coverage=1.0)
    (lone,) = curate(make_fold(rows), units, segmentation, everything)
    (saved,) = curate(make_fold(rows), units, segmentation, altered(everything, run_min=0.05))
    assert (names(lone), names(saved)) == ([0], [0, 1])


def test_scattered_votes_name_no_source() -> None:
    fold = make_fold(np.eye(20, dtype=np.float32).tolist())
    (result,) = curate(fold, make_units(*SENTENCE * 20), one_span(*["NOUN"] * 20), DEFAULT)
    assert result.outcome == "supported"
    assert result.sources == ()


def test_switches_are_the_papers_ablations() -> None:
    fold = make_fold([[0.9, 0.0], [0.0, 0.3], [0.9, 0.0], [0.0, 0.3]])
    units, segmentation = make_units("image", "image"), one_span("DET", "NOUN", "DET", "VERB")

    def shares(options: CurationOptions) -> dict[int, float]:
        (result,) = curate(fold, units, segmentation, options)
        return {source.unit.unit_id: source.share for source in result.sources}

    whole = altered(DEFAULT, coverage=1.0, gamma=1.0)
    votes = {0: 0.1 * 0.9 * 2, 1: (1.0 + 0.9) * 0.3}
    assert shares(whole) == pytest.approx({j: v / 0.75 for j, v in votes.items()})
    assert shares(altered(whole, pos_weighting=False)) == pytest.approx({0: 0.75, 1: 0.25})
    assert shares(altered(whole, confidence=False)) == pytest.approx({0: 0.2 / 2.1, 1: 1.9 / 2.1})


def test_runs_can_be_switched_off() -> None:
    # Scores: unit 0 has the larger share, unit 1 the longer run.
    pattern = [0, 1, 1, 1, 1, 0, 2, 0, 2, 0, 2, 0]
    fold = make_fold([[0.5 * (j == k) for j in range(3)] for k in pattern])
    units, segmentation = make_units(*IMAGE * 3), one_span(*["NOUN"] * 12)
    narrow = CurationOptions(alpha=0.5, coverage=0.3)
    (coherent,) = curate(fold, units, segmentation, narrow)
    (by_share,) = curate(fold, units, segmentation, altered(narrow, runs=False))
    assert (names(coherent), names(by_share)) == ([1], [0])
    assert by_share.sources[0].score == by_share.sources[0].share

    # And without runs nothing saves a unit below p_min.
    strict = CurationOptions(p_min=0.3, run_min=0.3, coverage=1.0)
    (with_runs,) = curate(fold, units, segmentation, altered(strict, p_min=0.4))
    (without,) = curate(fold, units, segmentation, altered(strict, p_min=0.4, runs=False))
    assert (names(with_runs), names(without)) == ([0, 1], [0])


def test_peak_projection_votes_by_the_highest_position() -> None:
    mass = np.array([[0.6, 0.3]], dtype=np.float32)
    peak = np.array([[0.1, 0.3]], dtype=np.float32)
    fold = Fold(mass, peak, np.array([0.1], np.float32), np.zeros(1, np.float32))
    units = make_units("sentence", "image")
    (by_mass,) = curate(fold, units, one_span("NOUN"), DEFAULT, "mass")
    (by_peak,) = curate(fold, units, one_span("NOUN"), DEFAULT, "peak")
    assert (names(by_mass), names(by_peak)) == ([0], [1])
    assert by_peak.confidence == pytest.approx(0.3)
    assert by_peak.sources[0].mass == pytest.approx(0.3)


def test_instructions_are_sources_only_if_included() -> None:
    fold = make_fold([[0.7, 0.2]])
    units = make_units("instruction", "sentence")
    (without,) = curate(fold, units, one_span("NOUN"), DEFAULT, instructions="exclude")
    (included,) = curate(fold, units, one_span("NOUN"), DEFAULT, instructions="include")
    assert (names(without), names(included)) == ([1], [0])
    for result in (without, included):
        assert result.masses["instruction"] == pytest.approx(0.7)
        assert result.masses["text"] == pytest.approx(0.2)


def test_pools_per_modality_vote_separately() -> None:
    fold = make_fold([[0.4, 0.1, 0.05, 0.02], [0.4, 0.1, 0.05, 0.02]])
    units = make_units("sentence", "audio_bin", "video_bin", "sound_bin")
    (joint,) = curate(fold, units, one_span("NOUN", "NOUN"), DEFAULT)
    (apart,) = curate(fold, units, one_span("NOUN", "NOUN"), PAPER)
    assert (names(joint), names(apart)) == ([0], [0, 1, 2, 3])
    assert [source.share for source in apart.sources] == [1.0] * 4
    assert apart.confidence == pytest.approx(0.4)

    # Shares of the unit mass: .70, .18, .09, .035.
    (loud,) = curate(fold, units, one_span("NOUN", "NOUN"), altered(PAPER, pool_min=0.05))
    assert names(loud) == [0, 1, 2]
    assert (loud.confidence, loud.masses) == (apart.confidence, apart.masses)

    fold = make_fold([[0.25, 0.25]])
    units = make_units("sentence", "audio_bin")
    (equal,) = curate(fold, units, one_span("NOUN"), altered(PAPER, pool_min=0.5))
    assert names(equal) == [0, 1]


def test_text_and_image_share_a_pool_but_not_a_count() -> None:
    # The joint argmax gives each token one vote; text and image votes are then counted apart, and
    # the image vote in the middle does not interrupt the run of text votes.
    fold = make_fold([[0.4, 0.1, 0.2], [0.4, 0.1, 0.5], [0.4, 0.1, 0.2], [0.1, 0.4, 0.2]])
    units = make_units("sentence", "sentence", "image")
    (apart,) = curate(fold, units, one_span(*["NOUN"] * 4), altered(PAPER, coverage=1.0))
    found = {source.unit.unit_id: source for source in apart.sources}
    assert found[2].share == found[2].run == 1.0
    assert found[0].share == found[0].run == pytest.approx(2 / 3)

    (joint,) = curate(fold, units, one_span(*["NOUN"] * 4), CurationOptions(coverage=1.0))
    found = {source.unit.unit_id: source for source in joint.sources}
    assert found[0].share == pytest.approx(2 * found[0].run)


def test_min_confidence_changes_the_outcome_only() -> None:
    fold, units = make_fold([[0.3, 0.1]]), make_units("sentence", "image")
    (low,) = curate(fold, units, one_span("NOUN"), CurationOptions(min_confidence=0.31))
    (high,) = curate(fold, units, one_span("NOUN"), CurationOptions(min_confidence=0.29))
    assert (low.outcome, high.outcome) == ("unsupported", "supported")
    assert replace(low, outcome="supported") == high


def test_punctuation_alone_is_unsupported_with_plain_means() -> None:
    fold = make_fold([[0.2, 0.1], [0.4, 0.3]])
    (result,) = curate(fold, make_units("sentence", "image"), one_span("PUNCT", "SPACE"), DEFAULT)
    assert (result.outcome, result.confidence, result.sources) == ("unsupported", 0.0, ())
    assert result.masses["text"] == pytest.approx(0.3)
    assert result.masses["image"] == pytest.approx(0.2)


def test_uncovered_mass_is_not_markup() -> None:
    mass = np.array([[0.4], [0.2]], np.float32)
    markup, generated, uncovered = (
        np.array(v, np.float32) for v in ([0.1, 0.2], [0, 0.1], [0.5] * 2)
    )
    fold = Fold(mass, mass, markup, generated, uncovered)
    (result,) = curate(fold, make_units("image"), one_span("NOUN", "PROPN"), DEFAULT)
    kept = {name: round(value, 6) for name, value in result.masses.items() if value}
    assert kept == {"image": 0.3, "markup": 0.15, "uncovered": 0.5, "generated": 0.05}
    # A fold that says nothing of it has none.
    assert Fold(mass, mass, markup, generated).uncovered.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kinds", [(), ("instruction",)])
def test_no_candidates_is_unsupported(kinds: tuple[UnitKind, ...]) -> None:
    fold = make_fold([[0.5] * len(kinds)] * 2)
    (result,) = curate(fold, make_units(*kinds), one_span("NOUN", "NOUN"), PAPER)
    assert (result.outcome, result.confidence, result.sources) == ("unsupported", 0.0, ())
    assert result.masses["instruction"] == pytest.approx(0.5 * len(kinds))
    assert result.masses["markup"] == pytest.approx(1 - 0.5 * len(kinds))


@pytest.mark.parametrize("confidence", [True, False])
def test_a_token_without_mass_casts_no_vote(confidence: bool) -> None:
    options = CurationOptions(confidence=confidence, gamma=0)
    fold = make_fold([[0.0, 0.0]])
    (nothing,) = curate(fold, make_units("sentence", "image"), one_span("NOUN"), options)
    assert (nothing.outcome, nothing.sources) == ("unsupported", ())
    fold = make_fold([[0.0, 0.0], [0.0, 0.2]])
    (some,) = curate(fold, make_units("sentence", "image"), one_span("NOUN", "NOUN"), options)
    assert [(source.unit.unit_id, source.share) for source in some.sources] == [(1, 1.0)]


def test_no_spans_and_no_tokens() -> None:
    fold = make_fold([[0.5]])
    assert curate(fold, make_units("image"), Segmentation((), ("SPACE",)), DEFAULT) == ()
    nothing = np.zeros((0, 1), dtype=np.float32)
    fold = Fold(nothing, nothing, nothing[:, 0], nothing[:, 0])
    assert curate(fold, make_units("image"), Segmentation((), ()), PAPER) == ()


def test_mismatched_inputs_are_named() -> None:
    with pytest.raises(TraceError, match=r"fold is \[1, 2\].*1 tagged tokens and 1 units"):
        curate(make_fold([[0.5, 0.2]]), make_units("image"), one_span("NOUN"), DEFAULT)
