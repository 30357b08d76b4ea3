"""Train the thinker in the planted world: `python -m training.tiny.train DEST --minutes 45`.

Seeded, and resumable: DEST holds a checkpoint that the same command goes on from. The log, one JSON
line per report, has the loss and the accuracy of every task on held-out samples.
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

from omnitrace_core.options import ModelOptions
from omnitrace_core.reader import SampleReader
from training.tiny.build import save_thinker
from training.tiny.lessons import loss_and_accuracy, make_lesson
from training.tiny.planted import SIZES, make_planted_thinker, make_planted_tokenizer
from training.world.tasks import TASK_NAMES, make_sample

if TYPE_CHECKING:
    from torch import Tensor

_LEARNING_RATE, _LEAST_RATE, _WARM_UP_STEPS = 2e-3, 2e-5, 50
_HIGHEST_LEVEL = 6
_HELD_OUT, _HELD_OUT_LEVEL = 32, 4
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True, slots=True)
class Plan:
    """A training run. tasks: drawn evenly; batch: samples per step."""

    seed: int
    minutes: float
    batch: int
    tasks: tuple[str, ...]
    circuit: bool
    report_s: float


class Training:
    """The model, its optimiser, and how far it has come."""

    def __init__(self, dest: Path, plan: Plan) -> None:
        import torch

        from omnitrace_core.backends import load_backend

        self.dest, self.plan = dest, plan
        if not (dest / "config.json").exists():
            tokenizer = make_planted_tokenizer()
            model = make_planted_thinker(tokenizer, plan.seed, plan.circuit)
            save_thinker(dest, model, tokenizer, SIZES)
        self.backend = load_backend(ModelOptions(path=str(dest), dtype="float32"))
        self.model: Any = self.backend.model
        self.model.requires_grad_(True).train()
        self.reader = SampleReader(self.backend.rules)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.step, self.spent_s = 0, 0.0
        if (dest / CHECKPOINT).exists():
            held = torch.load(dest / CHECKPOINT, weights_only=True)
            self.model.load_state_dict(held["model"])
            self.optimizer.load_state_dict(held["optimizer"])
            self.step, self.spent_s = held["step"], held["spent_s"]

    def run(self) -> None:
        """Train until the time is spent, reporting and saving on the way."""
        reported = self.spent_s
        while self.spent_s < 60 * self.plan.minutes:
            begun = time.perf_counter()
            loss = self._one_step()
            self.spent_s += time.perf_counter() - begun
            if self.spent_s - reported > self.plan.report_s:
                reported = self.spent_s
                self.report(float(loss))
                self.save()
        self.report(float("nan"))
        self.save()

    def _one_step(self) -> Tensor:
        import torch

        done = min(self.spent_s / (60 * self.plan.minutes), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(done)
        draw = Random(f"{self.plan.seed}/{self.step}")
        task = draw.choice(self.plan.tasks)
        level = draw.randint(2, 2 + min(_HIGHEST_LEVEL - 2, int(8 * done)))
        samples = [
            make_sample(task, level, f"train-{self.plan.seed}-{self.step}-{k}")
            for k in range(self.plan.batch)
        ]
        loss, _ = loss_and_accuracy(self.model, make_lesson(self.backend, self.reader, samples))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def _rate(self, done: float) -> float:
        warm = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        falling = 0.5 + 0.5 * math.cos(math.pi * done)
        return warm * (_LEAST_RATE + (_LEARNING_RATE - _LEAST_RATE) * falling)

    def report(self, loss: float) -> None:
        """Log and print the accuracy on value words of each task's held-out samples."""
        line = {
            "step": self.step,
            "minutes": round(self.spent_s / 60, 2),
            "loss": None if math.isnan(loss) else round(loss, 4),
            **self.accuracy(),
        }
        print(json.dumps(line), flush=True)
        with (self.dest / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def accuracy(self) -> dict[str, float]:
        """By task, the share of value words that are predicted after the right words."""
        import torch

        self.model.eval()
        found = {}
        with torch.no_grad():
            for task in self.plan.tasks:
                samples = [
                    make_sample(task, _HELD_OUT_LEVEL, f"held-out-{k}") for k in range(_HELD_OUT)
                ]
                lesson = make_lesson(self.backend, self.reader, samples)
                found[task] = round(loss_and_accuracy(self.model, lesson)[1], 3)
        self.model.train()
        return found

    def save(self) -> None:
        """Write the weights, and all that is needed to go on."""
        import torch

        self.model.save_pretrained(self.dest)
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
        }
        partial = self.dest / f"{CHECKPOINT}.partial"
        torch.save(state, partial)
        partial.replace(self.dest / CHECKPOINT)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description="Train the thinker in the planted world.")
    parser.add_argument("dest", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=45, help="of training, reports apart")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tasks", nargs="+", default=list(TASK_NAMES), choices=TASK_NAMES)
    parser.add_argument("--no-circuit", action="store_true", help="plain random weights")
    parser.add_argument("--report-s", type=float, default=60)
    args = parser.parse_args(argv)
    tasks = tuple(args.tasks)
    plan = Plan(args.seed, args.minutes, args.batch, tasks, not args.no_circuit, args.report_s)
    Training(args.dest, plan).run()


if __name__ == "__main__":
    main()
