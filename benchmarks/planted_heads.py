"""Learn weights of heads from planted evidence: `python -m benchmarks.planted_heads DEST.json`.

This measures what attention could find if the useful heads were known. The program learns a weight
for every head on a separate split, so that the weighted attention, summed over a sentence's tokens,
puts its mass on the planted units. DEST is a file for the signal `heads:DEST.json`, which is scored
like any other: `python -m benchmarks.planted --signals heads:DEST.json`.

Symbols: L layers, H heads, m units of a sample, c of them candidates.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.planted import load_tracer
from benchmarks.planted_cases import GROUPS, Case, answer
from omnitrace_core.attribution.curation import pos_weights
from omnitrace_core.options import SpanOptions
from omnitrace_core.text.spans import Segmenter

_STEPS, _RATE = 400, 0.05

# One right sentence: mass by head and candidate, [L * H, c] float32; for each item of its evidence,
# which candidates are planted, [items, c] bool.
Lesson = tuple[Tensor, Tensor]


def main(argv: Sequence[str] | None = None) -> None:
    """Trace every head separately, learn the weights, write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dest", type=Path)
    parser.add_argument("--model", default="omnitrace-tiny")
    parser.add_argument("--per-task", type=int, default=20)
    parser.add_argument("--level", type=int, default=4)
    parser.add_argument(
        "--seed", default="tuning", help="any word except the seed of the reported split"
    )
    args = parser.parse_args(argv)
    shape = _shape(args.model)
    with tempfile.TemporaryDirectory() as folder:
        signals = _one_head_each(Path(folder), *shape)
        tracer, segmenter = load_tracer(args.model, signals, "float32"), Segmenter(SpanOptions())
        lessons = [
            lesson
            for tasks in GROUPS.values()
            for task in tasks
            for case in answer(tracer, segmenter, task, args.level, args.seed, args.per_task)
            for lesson in lessons_of(case, signals)
        ]
    weights, before, after = learn(lessons)
    args.dest.write_text(json.dumps(weights.view(shape).tolist()) + "\n", encoding="utf-8")
    print(f"{len(lessons)} sentences; log loss {before:.3f} (equal weights) -> {after:.3f}")
    for layer, row in enumerate(weights.view(shape)):
        print(f"layer {layer}: {' '.join(f'{weight:.3f}' for weight in row)}")


def _shape(model: str) -> tuple[int, int]:
    config = load_tracer(model, ["attmean"], "float32").backend.decoder.config
    return int(config.num_hidden_layers), int(config.num_attention_heads)  # type: ignore[arg-type, union-attr]


def _one_head_each(folder: Path, n_layers: int, n_heads: int) -> list[str]:
    """A signal for every head; one replay reads all."""
    names = []
    for index, row in enumerate(torch.eye(n_layers * n_heads)):
        path = folder / f"{index}.json"
        path.write_text(json.dumps(row.view(n_layers, n_heads).tolist()), encoding="utf-8")
        names.append(f"heads:{path}")
    return names


def lessons_of(case: Case, signals: Sequence[str]) -> Iterator[Lesson]:
    """The lessons of a sample: one per right sentence."""
    weights = torch.from_numpy(pos_weights(case.segmentation.pos)).float()
    masses = torch.stack(
        [torch.from_numpy(case.trace.folds[name].mass[:, case.candidates]) for name in signals]
    )
    for evidence, index in zip(case.evidence, case.spans, strict=True):
        if index is None or not evidence:
            continue
        span = case.segmentation.spans[index]
        tokens = slice(span.token_start, span.token_end)
        mass = (masses[:, tokens] * weights[tokens, None]).sum(dim=1)
        planted = torch.tensor([[unit in item for unit in case.candidates] for item in evidence])
        yield mass, planted


def learn(lessons: Sequence[Lesson]) -> tuple[Tensor, float, float]:
    """Weights [L * H] that sum to 1, the loss with equal weights, and the loss with these."""
    raw = torch.zeros(lessons[0][0].shape[0], requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=_RATE)
    losses = []
    for _ in range(_STEPS):
        loss = _loss(raw.softmax(dim=0), lessons)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return raw.softmax(dim=0).detach(), losses[0], losses[-1]


def _loss(weights: Tensor, lessons: Sequence[Lesson]) -> Tensor:
    """Minus the log of the share of each item's units, mean over items and sentences."""
    losses = []
    for mass, planted in lessons:
        found = weights @ mass
        shares = (planted * (found / found.sum().clamp_min(1e-9))).sum(dim=1)
        losses.append(-(shares.clamp_min(1e-6) * planted.shape[0]).log().mean())
    return torch.stack(losses).mean()


if __name__ == "__main__":
    main()
