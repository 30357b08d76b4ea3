"""Folding stored positions into other units equals tracing with these units."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.errors import TraceError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions, UnitOptions
from omnitrace_core.positions import PositionKind, Positions, PromptMap
from omnitrace_core.records import Float32, Fold, ReadySample, SourceUnit, TokenTrace
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.folding import fold_rows
from omnitrace_core.tracing.refold import refold
from omnitrace_core.units.assign import assign_units
from tests.core.ready_samples import image, ready, sound, video

FIELDS = ("mass", "peak", "markup", "generated", "uncovered")


def timeline(n_positions: int) -> PromptMap:
    """Audio tokens of 0.1 s each; the last but one is chat markup, the last one text."""
    edges = np.arange(n_positions + 1) / 10
    stream = np.full(n_positions, PositionKind.AUDIO, np.int8)
    stream[-2:] = (PositionKind.NONE, PositionKind.TEXT)[-n_positions or 2 :]
    return PromptMap(
        stream=stream,
        part=np.zeros(n_positions, np.int32),
        lo=edges[:-1],
        hi=edges[1:],
        box=np.zeros((n_positions, 4), np.float32),
    )


def chunks(*times: tuple[float, float]) -> list[SourceUnit]:
    return [
        SourceUnit(j, "audio_chunk", "audio", 0, start_s=start, end_s=end)
        for j, (start, end) in enumerate(times)
    ]


def random_rows(n_gen: int, n_positions: int, seed: int = 0) -> Float32:
    rows: Float32 = np.random.default_rng(seed).random((n_gen, n_positions), dtype=np.float32)
    rows /= max(n_positions, 1)
    return rows


def old_fold(n_gen: int) -> Fold:
    generated = np.linspace(0, 1, n_gen, dtype=np.float32)
    return Fold(
        np.zeros((n_gen, 1), np.float32), np.zeros((n_gen, 1), np.float32), generated, generated
    )


def slow_fold(rows: Float32, prompt: PromptMap, index: list[int], n_units: int) -> Fold:
    """The fold without `generated`, which is zeros."""
    mass, peak = np.zeros((len(rows), n_units)), np.zeros((len(rows), n_units))
    markup, uncovered = np.zeros(len(rows)), np.zeros(len(rows))
    for t, row in enumerate(rows):
        for i, unit in enumerate(index):
            if unit < 0 and prompt.stream[i] in (PositionKind.NONE, PositionKind.TEXT):
                markup[t] += float(row[i])
            elif unit < 0:
                uncovered[t] += float(row[i])
            else:
                mass[t, unit] += float(row[i])
                peak[t, unit] = max(peak[t, unit], float(row[i]))
    folded = (mass, peak, markup, np.zeros(len(rows)), uncovered)
    return Fold(*(values.astype(np.float32) for values in folded))


UNITS = {
    "tiled": chunks((0.0, 1.0), (1.0, 2.5), (2.5, 4.0)),
    "gaps": chunks((0.3, 0.5), (1.0, 2.0), (3.0, 3.6)),
    "out of order": chunks((3.0, 4.0), (0.0, 1.0), (1.0, 2.0)),
    "some empty": chunks((7.0, 8.0), (0.0, 1.0), (9.0, 9.5), (1.0, 2.0), (9.5, 9.9)),
    "all empty": chunks((7.0, 8.0)),
    "none": [],
}


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize(("n_gen", "n_positions"), [(5, 40), (1, 1), (0, 40), (3, 0)])
def test_refold_equals_a_slow_loop(kind: str, n_gen: int, n_positions: int) -> None:
    units, prompt, rows = UNITS[kind], timeline(n_positions), random_rows(n_gen, n_positions)
    new = refold(Positions(prompt, {"attmean": rows}), {"attmean": old_fold(n_gen)}, units)
    index = assign_units(prompt, units)
    slow = slow_fold(rows, prompt, index.tolist(), len(units))
    fold = new["attmean"]
    np.testing.assert_allclose(fold.mass, slow.mass, rtol=1e-6)
    np.testing.assert_array_equal(fold.peak, slow.peak)
    np.testing.assert_allclose(fold.markup, slow.markup, rtol=1e-6)
    np.testing.assert_allclose(fold.uncovered, slow.uncovered, rtol=1e-6)
    np.testing.assert_array_equal(fold.generated, old_fold(n_gen).generated)
    for name in FIELDS:
        values = getattr(fold, name)
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
    is_media = torch.from_numpy(prompt.is_media)
    traced = fold_rows(torch.from_numpy(rows), torch.from_numpy(index), len(units), is_media)
    np.testing.assert_array_equal(fold.peak, traced.peak)
    for name in ("mass", "markup", "uncovered"):
        np.testing.assert_allclose(getattr(fold, name), getattr(traced, name), rtol=1e-6)


def test_sums_do_not_accumulate_rounding() -> None:
    rows = np.full((1, 30_000), 1e-4, np.float32)
    rows[0, 0] = 1.0
    rows[0, -2:] = 0.0
    units = chunks((0.0, 3_000.0))
    fold = refold(Positions(timeline(30_000), {"a": rows}), {"a": old_fold(1)}, units)["a"]
    assert fold.mass[0, 0] == np.float32(rows.astype(np.float64).sum())


def test_the_memory_layout_of_the_rows_changes_no_bit() -> None:
    rows = random_rows(7, 40)
    straight = Positions(timeline(40), {"a": rows})
    transposed = Positions(timeline(40), {"a": np.asfortranarray(rows)})
    for units in UNITS.values():
        one = refold(straight, {"a": old_fold(7)}, units)["a"]
        other = refold(transposed, {"a": old_fold(7)}, units)["a"]
        assert [getattr(one, name).tobytes() for name in FIELDS] == [
            getattr(other, name).tobytes() for name in FIELDS
        ]


def test_every_signal_with_rows_is_folded() -> None:
    rows = {"attmean": random_rows(2, 10, 1), "attraw": random_rows(2, 10, 2)}
    folds = {"attgrads": old_fold(2), "attmean": old_fold(2), "attraw": old_fold(2)}
    new = refold(Positions(timeline(10), rows), folds, chunks((0.0, 1.0)))
    assert list(new) == ["attmean", "attraw"]
    assert not np.array_equal(new["attmean"].mass, new["attraw"].mass)


def test_mismatched_inputs_are_refused() -> None:
    positions = Positions(timeline(10), {"attmean": random_rows(2, 10)})
    with pytest.raises(TraceError, match=r"rows of 'attmean' but no fold of it \(there is \['x'\]"):
        refold(positions, {"x": old_fold(2)}, [])
    with pytest.raises(
        TraceError, match=r"are \[2, 10\] .* the fold has 3 tokens and the prompt 10"
    ):
        refold(positions, {"attmean": old_fold(3)}, [])
    short = Positions(timeline(9), positions.rows)
    with pytest.raises(TraceError, match=r"the prompt 9 positions"):
        refold(short, {"attmean": old_fold(2)}, [])
    later = [dataclasses.replace(unit, unit_id=unit.unit_id + 1) for unit in UNITS["tiled"]]
    with pytest.raises(TraceError, match=r"ids are \[1, 2, 3\], not 0, 1, 2"):
        refold(positions, {"attmean": old_fold(2)}, later)


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> BatchTracer:
    options = TraceOptions(signals=("attmean", "attraw"), store="positions")
    model = ModelOptions(path=tiny_model, device="cpu")
    return BatchTracer(model, DecodeOptions(max_new_tokens=6), options)


def everything(units: UnitOptions) -> ReadySample:
    media: list[DecodedMedia] = [image(1, 112, 168), sound(2, 2.3), video(3)]
    parts: list[str | DecodedMedia] = ["All.", *media, "Tell me. Everything."]
    return ready(parts, units=units)


def test_a_refolded_trace_equals_one_traced_with_the_new_units(tracer: BatchTracer) -> None:
    coarse, fine = everything(UnitOptions()), everything(UnitOptions(image="grid", bin_s=0.5))
    traces = tracer.trace([coarse, fine, ready(["A longer text beside them. " * 20])])
    old, wanted, _ = traces
    assert isinstance(old, TokenTrace)
    assert isinstance(wanted, TokenTrace)
    assert old.positions is not None
    assert old.token_ids == wanted.token_ids
    assert len(fine.units) > len(coarse.units)
    for sample, trace in ((coarse, old), (fine, wanted)):
        new = refold(old.positions, old.folds, sample.units)
        assert list(new) == ["attmean", "attraw"]
        for signal, fold in new.items():
            for name in FIELDS:
                got, expected = getattr(fold, name), getattr(trace.folds[signal], name)
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_media_of_no_unit_are_uncovered_and_noted(tracer: BatchTracer) -> None:
    """With units that leave media out, in a padded batch, streamed, and folded again."""
    full = everything(UnitOptions())
    kept = [u for u in full.units if u.modality == "text" or (u.start_s or 0.0) >= 1.0]
    units = tuple(dataclasses.replace(unit, unit_id=j) for j, unit in enumerate(kept))
    partial = dataclasses.replace(full, units=units)
    longer = ready([image(4, 112, 168), "A longer text beside it. " * 30])
    whole, left_out, _ = tracer.trace([full, partial, longer])
    assert isinstance(whole, TokenTrace)
    assert isinstance(left_out, TokenTrace)
    assert left_out.positions is not None
    encoded = tracer.backend.encode(partial)
    uncovered = encoded.prompt.is_media & (encoded.unit_index < 0)
    n_left_out = {part: int((encoded.prompt.part[uncovered] == part).sum()) for part in (1, 2, 3)}
    assert all(n_left_out.values())
    notes = [note for note in left_out.notes if "lie in no unit" in note]
    assert len(notes) == 3
    assert notes[0] == (
        f"part 1: {n_left_out[1]} of {n_left_out[1]} positions lie in no unit; "
        "their mass is counted as uncovered"
    )
    assert not [note for note in whole.notes if "lie in no unit" in note]
    again = refold(left_out.positions, whole.folds, units)
    streamed = list(tracer.stream(partial))
    for signal, fold in left_out.folds.items():
        np.testing.assert_array_equal(whole.folds[signal].uncovered, 0.0)
        assert (fold.uncovered > 0).all()
        total = fold.mass.sum(1) + fold.markup + fold.uncovered + fold.generated
        np.testing.assert_allclose(total, 1.0, atol=1e-4)
        rows = left_out.positions.rows[signal][:, uncovered]
        np.testing.assert_allclose(fold.uncovered, rows.sum(axis=1), rtol=1e-5)
        np.testing.assert_allclose(fold.markup, whole.folds[signal].markup, rtol=1e-5)
        np.testing.assert_allclose(again[signal].uncovered, fold.uncovered, rtol=1e-5)
        values = np.concatenate([token.folds[signal].uncovered for token in streamed])
        np.testing.assert_allclose(values, fold.uncovered, rtol=1e-3)
