"""The benchmark of planted evidence: its cases, its reference, and whole runs of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import planted
from benchmarks.planted_cases import GROUPS, IN_REGIONS, evidence_units
from benchmarks.planted_reference import leave_one_out
from omnitrace_core.backends import load_backend
from omnitrace_core.options import ModelOptions, UnitOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from training.tiny.build import save_thinker
from training.tiny.planted_thinker import SIZES, make_planted_thinker, make_planted_tokenizer
from training.world.decoded import as_ready
from training.world.tasks import TASK_NAMES, make_sample

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    dest = tmp_path_factory.mktemp("untrained")
    tokenizer = make_planted_tokenizer()
    save_thinker(dest, make_planted_thinker(tokenizer, 0, circuit=True), tokenizer, SIZES)
    return str(dest)


def test_groups_hold_every_task_once() -> None:
    assert sorted(task for tasks in GROUPS.values() for task in tasks) == sorted(TASK_NAMES)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_piece_of_evidence_has_a_unit(untrained: str, task: str) -> None:
    rules = load_backend(ModelOptions(path=untrained, device="cpu")).rules
    grid = UnitOptions(image="grid" if task in IN_REGIONS else "whole", grid=(2, 2))
    reader = SampleReader(ReadingOptions(rules, units=grid))
    for number in range(6):
        sample = make_sample(task, 4, f"evidence-{number}")
        units = as_ready(sample, reader).units
        for question in sample.questions:
            items = evidence_units(question, units)
            groups = {piece.group for piece in question.evidence if piece.group is not None}
            alone = sum(piece.group is None for piece in question.evidence)
            assert len(items) == alone + len(groups)
            assert all(items), "no unit holds a piece of evidence"
            if not groups:
                assert all(len(item) == 1 for item in items)


def test_leaving_a_unit_out_equals_masking_it(untrained: str) -> None:
    """The same as running the model with the unit masked and all positions unchanged."""
    import torch

    backend = load_backend(ModelOptions(path=untrained, device="cpu"))
    ready = as_ready(
        make_sample("text_where", 3, "left-out"), SampleReader(ReadingOptions(backend.rules))
    )
    ids = backend.tokenizer("The lamp is in the hall.", add_special_tokens=False)["input_ids"]
    losses = leave_one_out(backend, ready, ids)
    assert losses.shape == (len(ready.units), len(ids))
    prepared = backend.prepare([ready])
    tokens = torch.cat([prepared.input_ids, torch.tensor([ids])], dim=1)
    places = torch.arange(tokens.shape[1]).expand(3, 1, -1)

    def logprobs(mask: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits = backend.model(
                input_ids=tokens, attention_mask=mask, position_ids=places
            ).logits[0, -len(ids) - 1 : -1]
        return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]

    whole = logprobs(torch.ones_like(tokens))
    for unit in ready.units:
        mask = torch.ones_like(tokens)
        mask[0, : prepared.unit_index.shape[1]][prepared.unit_index[0] == unit.unit_id] = 0
        np.testing.assert_allclose(losses[unit.unit_id], whole - logprobs(mask), atol=1e-4)
    assert np.abs(losses).max() > 1e-3


def test_the_program_runs_and_reports(
    untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "planted.json"
    arguments = ["--model", untrained, "--tasks", "text_where", "audio_after", "--per-task", "2"]
    planted.main([*arguments, "--precision", "--output", str(output)])
    results = json.loads(output.read_text())
    assert set(results["answers"]) == {"text_where", "audio_after"}
    assert results["apart"]["all"] == {"text": False, "audio": False}
    methods = set(results["all"])
    assert {*planted.BASELINES, "leave one out"} < methods
    assert {f"attboth {way}" for way in ("mass joint", "peak per_modality")} < methods
    # An untrained model answers nothing right, so all sentences score 0.
    assert results["all"]["order"]["text"][0] == 0.0
    assert "exact" in capsys.readouterr().out


def test_signal_and_reference_find_what_the_shipped_model_knows(tmp_path: Path) -> None:
    """On right answers the causal reference and the signal score high, the baselines low."""
    output = tmp_path / "planted.json"
    arguments = ["--tasks", "text_where", "image_lookup", "--per-task", "6", "--signals", "attboth"]
    planted.main([*arguments, "--files", "--output", str(output)])
    results = json.loads(output.read_text())
    assert results["answers"]["text_where"]["right"] > 0.8
    assert results["causal_top"]["sentences"] > 10
    assert results["causal_top"]["share"] > 0.9
    for group in ("text", "image"):
        score = {method: row[group][0] for method, row in results["right"].items()}
        assert score["leave one out"] > 0.8
        assert score[planted.CHOSEN_METHOD] > 0.8
        assert results["apart"]["right"][group]
        assert max(score[name] for name in ("random unit", "all units", "order")) < 0.7


def test_a_right_answer_is_scored_by_the_sources_of_its_span(untrained: str) -> None:
    from omnitrace_core.options import SpanOptions
    from omnitrace_core.text.spans import Segmenter

    tracer = planted.load_tracer(untrained, ["attmean"], "float32")
    segmenter = Segmenter(SpanOptions())
    (case,) = planted.answer(tracer, segmenter, "text_where", 3, "right", 1)
    right = replace(case, spans=tuple(range(len(case.spans))))
    board = planted.Board()
    truth = [set().union(*evidence) for evidence in case.evidence]
    board.add("truth", right, lambda evidence, place, span: planted.f1(truth[place], evidence))
    board.add("none", right, lambda evidence, place, span: planted.f1([], evidence))
    assert board.right["truth"]["text_where"] == [[1.0] * len(truth)]
    assert board.right["none"]["text_where"] == [[0.0] * len(truth)]


def test_the_chosen_settings_equal_those_of_the_quickstart() -> None:
    from pipeline.config import load_config

    config = load_config("configs/quickstart.yaml")
    assert config.curation == planted.CHOSEN
    assert config.trace.signals[0] == planted.SIGNAL
    assert config.trace.projection == "mass"
