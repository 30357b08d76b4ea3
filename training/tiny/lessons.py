"""Batches of the planted world as the model takes them, and the loss on the response.

Symbols: B samples, P padded prompt positions, n padded response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnitrace_core.backends.base import Backend
from omnitrace_core.reader import SampleReader
from training.world.decoded import as_ready
from training.world.records import WorldSample

if TYPE_CHECKING:
    from torch import Tensor

# Of the loss: the word that each ask is about weighs 1, the rest of the sentence this much.
PLAIN_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Lesson:
    """Prompts and right responses.

    inputs: of the model's forward, prompt and response together. targets: [B, n] long; weights:
    [B, n] float32, 0 on padding, 1 on value words, where they answer and not where a question's
    word is said again.
    """

    inputs: dict[str, Any]
    targets: Tensor
    weights: Tensor


def make_lesson(backend: Backend, reader: SampleReader, samples: Sequence[WorldSample]) -> Lesson:
    """Samples that agree on where their videos' sound goes (those of one task do)."""
    import torch

    encoded = [backend.encode(as_ready(sample, reader, cut=False)) for sample in samples]
    prepared = backend.collate(encoded)
    answers = [_answer(backend.tokenizer, sample) for sample in samples]
    n = max(len(ids) for ids, _ in answers)
    targets = torch.full((len(samples), n), int(backend.tokenizer.pad_token_id or 0))
    weights = torch.zeros(len(samples), n)
    for row, (ids, weight) in enumerate(answers):
        targets[row, : len(ids)] = torch.tensor(ids)
        weights[row, : len(ids)] = torch.tensor(weight)
    device = prepared.input_ids.device
    targets, weights = targets.to(device), weights.to(device)
    inputs = dict(prepared.inputs)
    inputs["input_ids"] = torch.cat([prepared.input_ids, targets], dim=1)
    inputs["attention_mask"] = torch.cat([prepared.attention_mask, (weights > 0).long()], dim=1)
    return Lesson(inputs, targets, weights)


def _answer(tokenizer: Any, sample: WorldSample) -> tuple[list[int], list[float]]:
    """Tokens of the right response with the end token, and what each weighs."""
    encoded = tokenizer(sample.response, add_special_tokens=False, return_offsets_mapping=True)
    values, at = set(), 0
    for ask in sample.asks:
        values |= {at + ask.answer.rindex(f" {value}") + 1 for value in ask.values}
        at += len(ask.answer) + 1
    weights = [
        1.0 if any(start <= value < end for value in values) else PLAIN_WEIGHT
        for start, end in encoded["offset_mapping"]
    ]
    return [*encoded["input_ids"], int(tokenizer.eos_token_id)], [*weights, PLAIN_WEIGHT]


def loss_and_accuracy(model: Any, lesson: Lesson) -> tuple[Tensor, float]:
    """Weighted cross-entropy of the response, and the share of value words that are predicted."""
    n = lesson.targets.shape[1]
    hidden = model.model(**lesson.inputs, use_cache=False).last_hidden_state[:, -n - 1 : -1]
    scores = model.lm_head(hidden).float().log_softmax(dim=-1)
    lost = -scores.gather(-1, lesson.targets[..., None]).squeeze(-1)
    loss = (lost * lesson.weights).sum() / lesson.weights.sum()
    right = (scores.argmax(dim=-1) == lesson.targets)[lesson.weights == 1.0]
    return loss, float(right.float().mean())
