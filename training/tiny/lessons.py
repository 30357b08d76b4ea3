"""Batches of the planted world as model inputs, and the loss on the response.

Symbols: B samples, P padded prompt positions, n padded response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnitrace_core.backends.base import Backend
from omnitrace_core.reader import SampleReader
from training.world.decoded import as_ready
from training.world.samples import WorldSample

if TYPE_CHECKING:
    from torch import Tensor

# Weight of a token in the loss, where the words that answer the question weigh 1.
PLAIN_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Lesson:
    """Prompts and right responses.

    inputs: of the model's forward, prompt and response together. targets: [B, n] long. weights:
    [B, n] float32: 0 on padding, 1 on the words that answer a question (not where the
    answer repeats a word of the question), PLAIN_WEIGHT elsewhere.
    """

    inputs: dict[str, Any]
    targets: Tensor
    weights: Tensor


def make_lesson(backend: Backend, reader: SampleReader, samples: Sequence[WorldSample]) -> Lesson:
    """A batch of samples that all have, or all lack, sound in their videos (as within a task)."""
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
    """Tokens of the right response with the end token, and their weights."""
    encoded = tokenizer(sample.response, add_special_tokens=False, return_offsets_mapping=True)
    starts, start_of_answer = set(), 0
    for question in sample.questions:
        starts |= {
            start_of_answer + question.answer.rindex(f" {value}") + 1 for value in question.values
        }
        start_of_answer += len(question.answer) + 1
    weights = [
        1.0 if any(start <= word < end for word in starts) else PLAIN_WEIGHT
        for start, end in encoded["offset_mapping"]
    ]
    return [*encoded["input_ids"], int(tokenizer.eos_token_id)], [*weights, PLAIN_WEIGHT]


def loss_and_accuracy(model: Any, lesson: Lesson) -> tuple[Tensor, float]:
    """Weighted cross-entropy of the response, and the share of answering words predicted right."""
    n = lesson.targets.shape[1]
    hidden = model.model(**lesson.inputs, use_cache=False).last_hidden_state[:, -n - 1 : -1]
    scores = model.lm_head(hidden).float().log_softmax(dim=-1)
    losses = -scores.gather(-1, lesson.targets[..., None]).squeeze(-1)
    loss = (losses * lesson.weights).sum() / lesson.weights.sum()
    is_right = (scores.argmax(dim=-1) == lesson.targets)[lesson.weights == 1.0]
    return loss, float(is_right.float().mean())
