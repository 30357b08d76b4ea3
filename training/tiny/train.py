"""Train the thinker in the planted world: `python -m training.tiny.train DEST --seed 0`.

Training resumes: the same command continues from the checkpoint in DEST, and a higher `--steps`
continues a finished run (at the learning rate of its place in the longer schedule). The first
weights, the samples and the schedule follow from the arguments alone, so a run ends with the same
weights wherever sums are rounded alike. The log, one JSON line per report, has the loss and the
accuracy of every task on validation samples; `benchmarks.planted` reports on a test split.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from omnitrace_core.errors import ConfigError
from omnitrace_core.options import ModelOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from training.tiny.build import save_thinker
from training.tiny.lessons import loss_and_accuracy, make_lesson
from training.tiny.planted_thinker import SIZES, kinds, make_planted_thinker, make_planted_tokenizer
from training.tiny.towers import align_towers
from training.world.tasks import make_sample

if TYPE_CHECKING:
    from torch import Tensor

_LEARNING_RATE, _LEAST_RATE, _WARM_UP_STEPS = 2e-3, 2e-5, 30
# Factors of the learning rate for weights that were set up before. At the full rate, the first
# steps (which learn the form of sentences) erase the planted queries and keys, and separate the
# towers from the words.
_PLANTED_RATE, _WORD_RATE = 0.1, 0.3
_HIGHEST_LEVEL, _MOST_PICTURES = 6, 4
STEPS = 1_000
_VALIDATION_SAMPLES, _VALIDATION_LEVEL = 32, 4
# Tasks whose samples are drawn together: they fit into one batch and cost about the same. A task
# that is learned late is listed more than once, so that it is drawn more often.
FAMILIES: dict[str, tuple[str, ...]] = {
    "facts": ("text_where", "text_who", "text_summary", "text_both"),
    "text": (
        *("text_where", "text_who", "text_summary", "text_both"),
        *("text_choice", "text_choice", "text_count", "text_compare"),
    ),
    "image": (
        *("image_lookup", "image_regions", "image_count", "image_choice"),
        *("image_whose", "image_whose", "conflict", "conflict"),
    ),
    "audio": ("audio_after", "audio_choice", "audio_choice"),
    "video": ("video_lookup",),
    "sound": ("video_sound",),
    "mixed": ("mixed",),
}
# From this share of the training on: weights of the families, and the highest level. All kinds of
# evidence are there from the start; training on one alone would make the model unlearn the others.
STAGES: tuple[tuple[float, dict[str, int], int], ...] = (
    (0.00, {"image": 2, "audio": 2, "video": 1, "sound": 2}, 4),
    (0.25, {"image": 3, "audio": 2, "video": 1, "sound": 2, "mixed": 2}, 5),
    (0.50, {"image": 3, "audio": 1, "video": 1, "sound": 2, "mixed": 2}, _HIGHEST_LEVEL),
)
# Every step also has text, with twice the samples: text is cheap, and its lookups need the most
# examples.
_FACTS_UNTIL = 0.25
_FAMILIES_OF_STEP = 3
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a training run.

    batch: samples per family in a step. families: those that may be drawn. report_every,
    tower_steps: in steps.
    """

    seed: int
    steps: int
    batch: int
    families: tuple[str, ...]
    circuit: bool
    report_every: int = 100
    tower_steps: int = 100

    @property
    def fixed(self) -> dict[str, Any]:
        """Settings that must not change when training continues."""
        return {
            "seed": self.seed,
            "batch": self.batch,
            "families": list(self.families),
            "circuit": self.circuit,
            "tower_steps": self.tower_steps,
        }


class Training:
    """A model in training: its weights, its optimiser and its number of steps.

    Raises:
        ConfigError: `dest` holds a run of another plan.
    """

    def __init__(self, dest: Path, plan: Plan) -> None:
        import torch

        from omnitrace_core.backends import load_backend

        self.dest, self.plan = dest, plan
        checkpoint = None
        if (dest / CHECKPOINT).exists():
            checkpoint = torch.load(dest / CHECKPOINT, weights_only=True, map_location="cpu")
            _check_same(plan, checkpoint["plan"], dest)
        else:
            tokenizer = make_planted_tokenizer()
            model = make_planted_thinker(tokenizer, plan.seed, plan.circuit)
            save_thinker(dest, model, tokenizer, SIZES)
        self.backend = load_backend(ModelOptions(path=str(dest), dtype="float32"))
        self.model: Any = self.backend.model
        self.model.requires_grad_(True).train()
        self.word_ids = [
            token for kind in kinds(self.backend.tokenizer) for forms in kind for token in forms
        ]
        self.reader = SampleReader(ReadingOptions(self.backend.rules))
        self.optimizer = torch.optim.AdamW(self._groups(), betas=(0.9, 0.98), weight_decay=0.01)
        self.step, self.spent_s = 0, 0.0
        if checkpoint is not None:
            self.model.load_state_dict(checkpoint["model"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self.step, self.spent_s = checkpoint["step"], checkpoint["spent_s"]
        else:
            align_towers(self.backend, self.reader, plan.seed, plan.tower_steps)
        _cut_log(dest / LOG, self.step)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser, each with its factor of the learning rate."""
        inner = self.model.model
        towers = [*inner.visual.parameters(), *inner.audio_tower.parameters()]
        layers = inner.language_model.layers[:2] if self.plan.circuit else []
        planted = [weight for layer in layers for weight in layer.self_attn.parameters()]
        ids = {id(weight) for weight in (*planted, *towers)}
        rest = [weight for weight in self.model.parameters() if id(weight) not in ids]
        factors = ((rest, 1.0), (planted, _PLANTED_RATE), (towers, _WORD_RATE))
        return [{"params": weights, "factor": factor} for weights, factor in factors]

    def run(self) -> None:
        """Train until all steps are done; report and save at intervals."""
        while self.step < self.plan.steps:
            started = time.perf_counter()
            loss = self.train_step()
            self.spent_s += time.perf_counter() - started
            if self.step % self.plan.report_every == 0 or self.step == self.plan.steps:
                self.report(float(loss))
                self.save()

    def train_step(self) -> Tensor:
        """Do one step; returns its mean loss."""
        import torch

        done = self.step / self.plan.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(done) * group["factor"]
        draw = Random(f"{self.plan.seed}/{self.step}")
        self.optimizer.zero_grad()
        losses = []
        for part in range(_FAMILIES_OF_STEP):
            family, highest = self._drawn(draw, done, part)
            tasks, size = FAMILIES[family], self.plan.batch * (2 if part == 0 else 1)
            level = draw.randint(2, highest)
            names = [f"train-{self.plan.seed}-{self.step}-{part}-{k}" for k in range(size)]
            samples = [make_sample(draw.choice(tasks), level, name) for name in names]
            loss, _ = loss_and_accuracy(self.model, make_lesson(self.backend, self.reader, samples))
            (loss / _FAMILIES_OF_STEP).backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        words = self.model.get_input_embeddings().weight
        with torch.no_grad():
            before = words[self.word_ids]
            self.optimizer.step()
            words[self.word_ids] = before.lerp(words[self.word_ids], _WORD_RATE)
        self.step += 1
        return torch.stack(losses).mean()

    def _drawn(self, draw: Random, done: float, part: int) -> tuple[str, int]:
        """The family of batch `part` of a step (text for the first), and the highest level."""
        _, weights, highest = next(stage for stage in reversed(STAGES) if stage[0] <= done)
        if part == 0:
            weights = {"facts": 1} if done < _FACTS_UNTIL else {"text": 1}
        allowed = [name for name in weights if name in self.plan.families]
        allowed = allowed or list(self.plan.families)
        (family,) = draw.choices(allowed, [weights.get(name, 1) for name in allowed])
        return family, min(highest, _MOST_PICTURES) if family == "image" else highest

    def _rate(self, done: float) -> float:
        """The learning rate: full for the first half of the steps, then falling as a cosine."""
        warm_up = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        falling = 0.5 + 0.5 * math.cos(math.pi * max(0.0, 2 * done - 1))
        return warm_up * (_LEAST_RATE + (_LEARNING_RATE - _LEAST_RATE) * falling)

    def report(self, loss: float) -> None:
        """Log and print the loss and the accuracy by task on validation samples."""
        line = {
            "step": self.step,
            "minutes": round(self.spent_s / 60, 2),
            "loss": round(loss, 4),
            **self.accuracy(),
        }
        print(json.dumps(line), flush=True)
        with (self.dest / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def accuracy(self) -> dict[str, float]:
        """By task, the share of answering words that are predicted right after the right words."""
        import torch

        self.model.eval()
        accuracy = {}
        tasks = dict.fromkeys(task for name in self.plan.families for task in FAMILIES[name])
        with torch.no_grad():
            for task in tasks:
                samples = [
                    make_sample(task, _VALIDATION_LEVEL, f"watched-{k}")
                    for k in range(_VALIDATION_SAMPLES)
                ]
                lesson = make_lesson(self.backend, self.reader, samples)
                accuracy[task] = round(loss_and_accuracy(self.model, lesson)[1], 3)
        self.model.train()
        return accuracy

    def save(self) -> None:
        """Write the weights, and a checkpoint to continue from."""
        import torch

        self.model.save_pretrained(self.dest / "partial")
        for path in (self.dest / "partial").iterdir():
            path.replace(self.dest / path.name)
        (self.dest / "partial").rmdir()
        state = {
            "plan": self.plan.fixed,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
        }
        partial = self.dest / f"{CHECKPOINT}.partial"
        torch.save(state, partial)
        partial.replace(self.dest / CHECKPOINT)


def _cut_log(path: Path, step: int) -> None:
    """Drop reports from after the checkpoint: those steps are done again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _check_same(plan: Plan, stored: dict[str, Any], dest: Path) -> None:
    """Raises: ConfigError: the checkpoint is of another plan."""
    for name, value in plan.fixed.items():
        if stored.get(name) != value:
            raise ConfigError(
                f"{dest} was trained with {name} {stored.get(name)}, not {value}; give the same "
                "value or another folder"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train the thinker in the planted world.")
    parser.add_argument("dest", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="in total, earlier ones included")
    parser.add_argument("--batch", type=int, default=12, help="samples per family in a step")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument(
        "--no-circuit",
        action="store_true",
        help="no planted attention; towers are aligned all the same",
    )
    parser.add_argument("--report-every", type=int, default=100, help="steps")
    args = parser.parse_args(argv)
    families, circuit = tuple(args.families), not args.no_circuit
    plan = Plan(args.seed, args.steps, args.batch, families, circuit, args.report_every)
    Training(args.dest, plan).run()


if __name__ == "__main__":
    main()
