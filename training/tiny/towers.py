"""Align the vision and audio towers with the word embeddings, before the thinker is trained.

Training moves each token of a picture to the sum of the embeddings of its shape and its colour,
each token of a recording to the embedding of its sound, and a token that shows nothing to zero. The
word embeddings stay as they are. It takes seconds; without it, lookups in pictures form late or
never.

Symbols: N tokens of a batch, D model width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from omnitrace_core.backends.base import Backend
from omnitrace_core.reader import SampleReader
from training.world.decoded import as_ready
from training.world.lexicon import COLOURS, SHAPES, SOUNDS
from training.world.samples import Part, Picture, Recording, Shape, WorldSample

if TYPE_CHECKING:
    from torch import Tensor

_RATE, _SHARPNESS = 3e-3, 10.0
_PICTURES, _RECORDINGS, _SECONDS = 48, 8, 6
TOKENS_PER_S = 25

# The words that one token should be close to; empty if it shows nothing.
Words = tuple[str, ...]


def align_towers(backend: Backend, reader: SampleReader, seed: int, steps: int) -> dict[str, float]:
    """Train both towers; returns, by tower, the share of tokens whose nearest word is right."""
    import torch

    model: Any = backend.model
    towers = {"vision": model.model.visual, "audio": model.model.audio_tower}
    shares: dict[str, float] = {}
    for name, tower in towers.items():
        draw = Random(f"{name}/{seed}")
        optimizer = torch.optim.AdamW(tower.parameters(), lr=_RATE, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
        for _ in range(steps):
            make = _pictures if name == "vision" else _recordings
            loss, shares[name] = _lesson(backend, reader, *make(draw))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.zero_grad(set_to_none=True)
    print(json.dumps({"towers": {name: round(share, 3) for name, share in shares.items()}}))
    return shares


def _pictures(draw: Random) -> tuple[list[Part], list[Words]]:
    """Pictures, and the words of each of their 2 x 2 tokens."""
    parts: list[Part] = []
    words: list[Words] = []
    for _ in range(_PICTURES):
        cells: list[Words] = [()] * 4
        if draw.random() < 0.5:
            kind, colour = draw.choice(SHAPES), draw.choice(tuple(COLOURS))
            shapes: tuple[Shape, ...] = (Shape(kind, colour),)
            cells = [(kind, colour)] * 4
        else:
            quadrants = draw.sample(range(4), draw.randint(1, 3))
            shapes = tuple(
                Shape(draw.choice(SHAPES), draw.choice(tuple(COLOURS)), k) for k in quadrants
            )
            for k, shape in zip(quadrants, shapes, strict=True):
                cells[k] = (shape.kind, shape.colour)
        parts.append(Picture(shapes, draw.randrange(2**31)))
        words += cells
    return parts, words


def _recordings(draw: Random) -> tuple[list[Part], list[Words]]:
    """Recordings, and the word of each of their tokens."""
    parts: list[Part] = []
    words: list[Words] = []
    for _ in range(_RECORDINGS):
        sounds = tuple(draw.choice(SOUNDS) for _ in range(_SECONDS))
        parts.append(Recording(sounds, draw.randrange(2**31)))
        words += [(sound,) for sound in sounds for _ in range(TOKENS_PER_S)]
    return parts, words


def _lesson(
    backend: Backend, reader: SampleReader, parts: Sequence[Part], words: Sequence[Words]
) -> tuple[Tensor, float]:
    """The loss of the tokens against their words, and the share whose nearest word is right."""
    import torch

    model: Any = backend.model
    sample = WorldSample("towers", "towers", tuple(parts), "?", ())
    inputs = backend.collate([backend.encode(as_ready(sample, reader, cut=False))]).inputs
    features = _features(model, inputs)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        vectors = {word: embeddings[_id(backend, word)] for of_token in words for word in of_token}
        zero = embeddings.new_zeros(embeddings.shape[1])
        targets = torch.stack(
            [sum((vectors[word] for word in of_token), zero) for of_token in words]
        )
    losses = [(features - targets).square().sum(-1).mean()]
    right = total = 0
    for pool in (tuple(COLOURS), SHAPES, SOUNDS):
        rows, targets_of_rows = _rows_of_pool(words, pool)
        if not rows:
            continue
        with torch.no_grad():
            names = embeddings[[_id(backend, word) for word in pool]]
        scores = torch.cosine_similarity(features[rows][:, None], names[None], dim=-1)
        target = torch.tensor(targets_of_rows, device=features.device)
        losses.append(torch.nn.functional.cross_entropy(scores * _SHARPNESS, target))
        right += int((scores.argmax(-1) == target).sum())
        total += len(rows)
    return torch.stack(losses).sum(), right / total


def _rows_of_pool(words: Sequence[Words], pool: Sequence[str]) -> tuple[list[int], list[int]]:
    """Indices of the tokens that have a word of the pool, and of that word in the pool."""
    pairs = [
        (row, pool.index(word))
        for row, of_token in enumerate(words)
        for word in of_token
        if word in pool
    ]
    return [row for row, _ in pairs], [index for _, index in pairs]


def _features(model: Any, inputs: Any) -> Tensor:
    """Output of the towers, [N, D], as the decoder receives it."""
    import torch

    if "pixel_values" in inputs:
        output = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        return torch.cat(list(output.pooler_output))
    output = model.get_audio_features(inputs["input_features"], inputs["feature_attention_mask"])
    features: Tensor = output.last_hidden_state
    return features


def _id(backend: Backend, word: str) -> int:
    (token,) = backend.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    return int(token)
