"""Compare variants of `attodds` and `attboth`: `python -m benchmarks.planted_paths`.

attodds weighs what attention reads by the gradient of the token's log odds on the direct path to
the output. This program also takes the gradient in other ways, by autograd through the whole
decoder: of the logit or the log probability instead of the odds, with norms that are
differentiated, through the MLPs above, and through the queries above as well. It also tries ways to
combine the gradient with attention, and to follow the content of a position back to where it was
copied from. All variants are curated with the same settings (mass, the chosen ones) and scored on
right sentences of a separate split.

Symbols: P prompt positions, n response tokens, T = P + n - 1, L layers, H heads, G key-value heads,
d head width, D model width.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.planted import CHOSEN, load_tracer
from benchmarks.planted_cases import GROUPS, Case, answer
from benchmarks.planted_reference import embed
from omnitrace_core.attribution.curation import curate
from omnitrace_core.attribution.scores import f1
from omnitrace_core.backends.base import Backend
from omnitrace_core.options import SpanOptions
from omnitrace_core.text.spans import Segmenter
from omnitrace_core.tracing.folding import fold_rows

Score = Literal["odds", "logit", "log p"]


@dataclass(frozen=True, slots=True)
class Variant:
    """How the gradient is captured.

    score: the quantity that is differentiated. norms: whether RMS norms are differentiated (their
    scale is not held fixed). mlps, queries: whether the gradient passes through those of the layers
    above.
    """

    score: Score = "odds"
    norms: bool = False
    mlps: bool = False
    queries: bool = False

    def __str__(self) -> str:
        through = [name for name in ("mlps", "queries") if getattr(self, name)]
        norms = "norms not fixed" if self.norms else "norms fixed"
        return f"{self.score}, {' and '.join(through) or 'direct'}, {norms}"


VARIANTS = (
    Variant(),
    Variant(norms=True),
    Variant("logit"),
    Variant("log p"),
    Variant(mlps=True),
    Variant(mlps=True, queries=True),
    Variant(norms=True, mlps=True),
    Variant(norms=True, mlps=True, queries=True),
    Variant("logit", mlps=True),
)


@dataclass(frozen=True, slots=True)
class Read:
    """The result of one forward pass, a tensor per layer.

    attention: of the queries that produced the response, [H, n, T]. among: mean over heads of all
    queries, [T, T]. effects: attention times effect on the score, summed over heads, [n, T].
    """

    attention: list[Tensor]
    among: list[Tensor]
    effects: list[Tensor]


def rows_of(backend: Backend, case: Case) -> dict[str, Tensor]:
    """The rows of every variant over the prompt, [n, P] float32, not below 0."""
    read = {str(variant): forward(backend, case, variant) for variant in VARIANTS}
    first = read[str(Variant())]
    mean = torch.stack(first.attention).mean(dim=(0, 1))
    odds = torch.stack(first.effects).sum(0).relu()
    shares = odds / odds.sum(-1, keepdim=True).clamp_min(1e-9)
    rows = {name: torch.stack(each.effects).sum(0).relu() for name, each in read.items()}
    rows["ReLU in each layer"] = sum(
        (effect.relu() for effect in first.effects), torch.zeros_like(odds)
    )
    rows["followed back through the layers below"] = followed(first)
    rows["attmean"] = mean
    rows["attmean and odds, product"] = (mean * odds).sqrt()
    rows["attmean and odds, mean of shares"] = (mean + shares) / 2
    n_prompt = first.attention[0].shape[2] - len(case.trace.token_ids) + 1
    return {name: row[:, :n_prompt] for name, row in rows.items()}


def followed(read: Read) -> Tensor:
    """Layer by layer, move half of a position's effect to where attention below read from."""
    total = torch.zeros_like(read.effects[0])
    for layer, effect in enumerate(read.effects):
        current = effect.relu()
        for below in reversed(read.among[:layer]):
            current = (current + current @ below) / 2
        total += current
    return total


def forward(backend: Backend, case: Case, variant: Variant) -> Read:
    """One forward pass over prompt and response, and the gradient of one variant."""
    ids = case.trace.token_ids
    embedded = embed(backend, case.ready, ids)
    decoder: Any = backend.decoder
    first = embedded.unit_index.shape[0] - 1
    captured: dict[str, list[Tensor]] = defaultdict(list)
    with ExitStack() as stack:
        stack.enter_context(_eager(decoder))
        for layer in decoder.layers:
            for hook in _hooks(layer.self_attn, variant, captured):
                stack.callback(hook.remove)
        if not variant.norms:
            stack.enter_context(_fixed_norms(decoder))
        watch = decoder.norm.register_forward_pre_hook(
            lambda module, args: _leaf(args[0], captured["stream"], cut=not variant.mlps)
        )
        stack.callback(watch.remove)
        with torch.enable_grad():
            output = decoder(
                inputs_embeds=embedded.embeddings,
                position_ids=embedded.positions,
                attention_mask=torch.ones(embedded.embeddings.shape[:2], dtype=torch.long),
                use_cache=False,
                output_attentions=True,
            )
            logits: Any = backend.output_head(output.last_hidden_state[0, first:])
            score = _scored(logits, torch.tensor(list(ids)), variant.score).sum()
        sources = captured["heads"] if variant.mlps else captured["stream"]
        gradients = [grad[0, first:] for grad in torch.autograd.grad(score, sources)]
    if not variant.mlps:
        gradients = [gradients[0] @ layer.self_attn.o_proj.weight for layer in decoder.layers]
    everywhere = [rows[0].detach() for rows in output.attentions]
    attention = [rows[:, first:] for rows in everywhere]
    effects = [
        _effect(rows, gradient, value)
        for rows, gradient, value in zip(attention, gradients, captured["values"], strict=True)
    ]
    return Read(attention, [rows.mean(0) for rows in everywhere], effects)


def _effect(attention: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
    """Sum over heads of A x <v, gradient>. gradient: [n, H * d]; value: [1, T, G * d]."""
    heads, n, length = attention.shape
    width = gradient.shape[1] // heads
    of_head = gradient.view(n, heads, width).transpose(0, 1)
    groups = value.shape[2] // width
    carried = value[0].view(length, groups, width).transpose(0, 1)
    carried = carried.repeat_interleave(heads // groups, dim=0)
    return (attention * (of_head @ carried.transpose(1, 2))).sum(0).detach()


def _scored(logits: Tensor, targets: Tensor, score: Score) -> Tensor:
    chosen = logits.gather(-1, targets[:, None])[:, 0]
    if score == "logit":
        return chosen
    if score == "log p":
        return chosen - logits.logsumexp(-1)
    return chosen - logits.scatter(-1, targets[:, None], float("-inf")).logsumexp(-1)


def _hooks(attention: Any, variant: Variant, captured: dict[str, list[Tensor]]) -> Iterator[Any]:
    """Detach keys, values and perhaps queries; capture values and head outputs."""

    def keep_value(module: Any, args: Any, output: Tensor) -> Tensor:
        captured["values"].append(output.detach())
        return output.detach()

    yield attention.k_proj.register_forward_hook(lambda module, args, output: output.detach())
    yield attention.v_proj.register_forward_hook(keep_value)
    if not variant.queries:
        yield attention.q_proj.register_forward_hook(lambda module, args, output: output.detach())
    yield attention.o_proj.register_forward_pre_hook(
        lambda module, args: _leaf(args[0], captured["heads"], cut=False)
    )


def _leaf(value: Tensor, captured: list[Tensor], *, cut: bool) -> tuple[Tensor]:
    """Capture a module's input for a gradient. cut: the gradient does not pass further back."""
    if cut or not value.requires_grad:
        value = value.detach().requires_grad_()
    captured.append(value)
    return (value,)


@contextmanager
def _eager(decoder: Any) -> Iterator[None]:
    before = decoder.config._attn_implementation
    decoder.config._attn_implementation = "eager"
    try:
        yield
    finally:
        decoder.config._attn_implementation = before


@contextmanager
def _fixed_norms(decoder: Any) -> Iterator[None]:
    """Let the scale of RMS norms be a constant, not a function of their input."""
    norms = [module for module in decoder.modules() if type(module).__name__.endswith("RMSNorm")]

    def fixed(norm: Any) -> Callable[[Tensor], Tensor]:
        def forward(value: Tensor) -> Tensor:
            size = value.detach().square().mean(-1, keepdim=True) + norm.variance_epsilon
            scaled: Tensor = norm.weight * (value * size.rsqrt())
            return scaled

        return forward

    for norm in norms:
        norm.forward = fixed(norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def main(argv: Sequence[str] | None = None) -> None:
    """Answer the samples, score every variant, print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="omnitrace-tiny")
    parser.add_argument("--per-task", type=int, default=12)
    parser.add_argument("--level", type=int, default=4)
    parser.add_argument(
        "--seed", default="study", help="any word except the seed of the reported split"
    )
    parser.add_argument("--output", type=Path, help="JSON of the scores")
    args = parser.parse_args(argv)
    tracer, segmenter = load_tracer(args.model, ["attodds"], "float32"), Segmenter(SpanOptions())
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, tasks in GROUPS.items():
        for task in tasks:
            for case in answer(tracer, segmenter, task, args.level, args.seed, args.per_task):
                for name, values in scored(tracer.backend, case).items():
                    scores[name][group] += values
    means = {name: {g: float(np.mean(v)) for g, v in of.items()} for name, of in scores.items()}
    (counts,) = {json.dumps({g: len(v) for g, v in of.items()}) for of in scores.values()}
    print(f"mean F1 of right sentences ({counts}) on the split {args.seed!r}\n")
    print(f"| | {' | '.join(GROUPS)} | mean |\n|{' --- |' * (len(GROUPS) + 2)}")
    for name, of_group in means.items():
        cells = [of_group[group] for group in GROUPS]
        cells_text = " | ".join(f"{cell:.3f}" for cell in [*cells, float(np.mean(cells))])
        print(f"| {name} | {cells_text} |")
    if args.output:
        text = json.dumps({"sentences": json.loads(counts), "f1": means}, indent=1)
        args.output.write_text(text + "\n", encoding="utf-8")


def scored(backend: Backend, case: Case) -> dict[str, list[float]]:
    """The F1 of each right sentence, by variant."""
    index = backend.prepare([case.ready]).unit_index[0]
    found = {}
    for name, rows in rows_of(backend, case).items():
        fold = fold_rows(rows, index, len(case.ready.units))
        spans = curate(fold, case.ready.units, case.segmentation, CHOSEN, "mass")
        found[name] = [
            f1({source.unit.unit_id for source in spans[span].sources}, evidence)
            for span, evidence in zip(case.spans, case.evidence, strict=True)
            if span is not None
        ]
    return found


if __name__ == "__main__":
    main()
