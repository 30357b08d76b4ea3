"""Training the thinker: its tokenizer, its planted circuit, its lessons, and that it learns."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnitrace_core.backends import load_backend
from omnitrace_core.errors import ConfigError
from omnitrace_core.options import ModelOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from training.tiny.build import save_thinker
from training.tiny.circuit import LOOK_BACK
from training.tiny.lessons import PLAIN_WEIGHT, loss_and_accuracy, make_lesson
from training.tiny.planted_thinker import SIZES, make_planted_thinker, make_planted_tokenizer
from training.tiny.towers import align_towers
from training.tiny.train import Plan, Training
from training.world import lexicon
from training.world.tasks import TASK_NAMES, make_sample

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_planted_tokenizer()


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("planted")
    save_thinker(dest, make_planted_thinker(tokenizer, 0, circuit=True), tokenizer, SIZES)
    return dest


def test_every_word_of_the_world_is_one_token(tokenizer: Any) -> None:
    for words in (lexicon.NAMES, lexicon.OBJECTS, lexicon.PLACES, lexicon.SOUNDS, lexicon.NUMBERS):
        for word in words:
            assert len(tokenizer(f" {word}")["input_ids"]) == 1, word
    for task in TASK_NAMES:
        for number in range(20):
            sample = make_sample(task, 6, f"unseen-{number}")
            for text in (sample.prompt, sample.response):
                ids = tokenizer(text)["input_ids"]
                assert tokenizer.decode(ids) == text
                assert len(ids) <= len(text.split()) * 1.6 + 8, text


@pytest.mark.parametrize(
    "text", ["Ünïcode, \u2603 and 漢字!", "  two  spaces\n\nlines ", "xyzzy 1234"]
)
def test_other_text_is_decoded_to_itself(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_planted_heads_look_back(folder: Path) -> None:
    """By their rotary phase alone, whatever the words are."""
    backend = load_backend(ModelOptions(path=str(folder), attention="eager", device="cpu"))
    model: Any = backend.model
    ids = torch.randint(0, 500, (1, 60), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        rows = model(input_ids=ids, output_attentions=True).attentions[0][0]
    for head, back in LOOK_BACK.items():
        attended = rows[head, 30:].argmax(dim=-1)
        distance = (attended - torch.arange(30, 60) + back).abs()
        # The tokens of a second of sound are alike: a neighbour of the right one is enough.
        near = back < 10
        assert (distance <= (0 if near else 1)).float().mean() > 0.9, (head, back)
        assert rows[head, 30:].max(dim=-1).values.mean() > (0.9 if near else 0.3)


@pytest.mark.parametrize("task", ["text_where", "text_both", "text_summary", "audio_after"])
def test_lessons_weigh_the_answering_words_most(folder: Path, task: str) -> None:
    """Once per question and value, though one question may name what answers another."""
    backend = load_backend(ModelOptions(path=str(folder), device="cpu"))
    samples = [make_sample(task, 5, f"lesson-{k}") for k in range(8)]
    lesson = make_lesson(backend, SampleReader(ReadingOptions(backend.rules)), samples)
    for row, sample in enumerate(samples):
        kept = lesson.weights[row] > 0
        ids = lesson.targets[row][kept].tolist()
        text = backend.tokenizer.decode(ids, skip_special_tokens=True)
        assert text == sample.response
        assert ids[-1] == backend.tokenizer.eos_token_id
        heavy = lesson.targets[row][lesson.weights[row] == 1.0].tolist()
        words = [str(backend.tokenizer.decode([token])).strip() for token in heavy]
        assert words == [value for question in sample.questions for value in question.values]
        plain = lesson.weights[row][kept & (lesson.weights[row] != 1.0)]
        assert plain.tolist() == pytest.approx([PLAIN_WEIGHT] * len(plain))
    n = lesson.targets.shape[1]
    assert (lesson.inputs["input_ids"][:, -n:] == lesson.targets).all()


@pytest.mark.parametrize("task", ["text_where", "image_lookup", "audio_after", "video_sound"])
def test_every_modality_has_a_gradient(folder: Path, task: str) -> None:
    backend = load_backend(ModelOptions(path=str(folder), device="cpu"))
    model: Any = backend.model
    model.requires_grad_(True)
    samples = [make_sample(task, 3, f"gradient-{k}") for k in range(2)]
    lesson = make_lesson(backend, SampleReader(ReadingOptions(backend.rules)), samples)
    loss, accuracy = loss_and_accuracy(model, lesson)
    loss.backward()
    assert 0 <= accuracy <= 1
    towers = {"image": model.model.visual, "audio": model.model.audio_tower}
    for name, tower in towers.items():
        reached = any(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.parameters())
        expected = (name == "image" and task[:5] in ("image", "video")) or (
            name == "audio" and task in ("audio_after", "video_sound")
        )
        assert reached == expected, (task, name)


def test_towers_learn_words(folder: Path) -> None:
    """A few steps bring tokens nearer to the words for what they show and sound."""
    backend = load_backend(ModelOptions(path=str(folder), device="cpu"))
    model: Any = backend.model
    model.requires_grad_(True)
    words = model.get_input_embeddings().weight.detach().clone()
    reader = SampleReader(ReadingOptions(backend.rules))
    before = align_towers(backend, reader, seed=0, steps=1)
    after = align_towers(backend, reader, seed=0, steps=15)
    assert all(after[tower] > before[tower] + 0.1 for tower in ("vision", "audio"))
    assert torch.equal(words, model.get_input_embeddings().weight)


def test_training_learns_saves_and_continues(tmp_path: Path) -> None:
    plan = Plan(0, 100, 4, ("facts",), circuit=True, tower_steps=2)
    training = Training(tmp_path, plan)
    losses = [float(training.train_step()) for _ in range(20)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    training.report(losses[-1])
    training.save()
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 20
    assert 0 <= json.loads(line)["text_where"] <= 1
    again = Training(tmp_path, plan)
    assert again.step == 20
    same = zip(training.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    again.train_step()
    with pytest.raises(ConfigError, match="seed 0, not 1"):
        Training(tmp_path, dataclasses.replace(plan, seed=1))
    assert load_backend(ModelOptions(path=str(tmp_path))).model is not None


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    plan = Plan(3, 4, 2, ("facts", "audio"), circuit=True, report_every=2, tower_steps=1)
    Training(tmp_path / "whole", plan).run()
    stopped = Training(tmp_path / "stopped", plan)
    stopped.train_step()
    stopped.train_step()
    stopped.save()
    stopped.report(0.0)
    stopped.train_step()  # steps after the checkpoint are lost
    stopped.report(0.0)
    again = Training(tmp_path / "stopped", plan)
    again.run()
    ends = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"]
        for name in ("whole", "stopped")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    lines = (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]


def test_a_run_is_shipped_in_half_precision_with_its_own_words(
    folder: Path, tmp_path: Path
) -> None:
    from safetensors import safe_open

    from training.tiny.ship import ship
    from training.tiny.train import LOG

    (folder / LOG).write_text('{"step": 1}\n')
    (tmp_path / "README.md").write_text("written by hand")
    dest = ship(folder, tmp_path)
    with safe_open(dest / "model.safetensors", "pt") as weights:
        dtypes = {weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118
    assert dtypes == {torch.float16}
    before, after = (load_backend(ModelOptions(path=str(path))) for path in (folder, dest))
    assert before.tokenizer.get_vocab() == after.tokenizer.get_vocab()
    assert before.rules == after.rules
    assert (dest / LOG).read_text() == '{"step": 1}\n'
    assert (dest / "README.md").read_text() == "written by hand"
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in dest.iterdir())
