"""Before the thinker is trained: its towers learn to say what they see and hear in its own words.

Each token of a picture is drawn to the sum of the embeddings of its shape and its colour, each
token of a recording to the embedding of its sound; a token with nothing to it is drawn to zero. The
words stay as they are. Seconds of training, without which lookups in pictures form late or never.

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
from training.world.records import Part, Picture, Recording, Shape, WorldSample

if TYPE_CHECKING:
    from torch import Tensor

_RATE, _SHARPNESS = 3e-3, 10.0
_PICTURES, _RECORDINGS, _SECONDS = 48, 8, 6
TOKENS_OF_A_SECOND = 25

# Of one token: the words that it should say, none if there is nothing to see.
Words = tuple[str, ...]


def align_towers(backend: Backend, reader: SampleReader, seed: int, steps: int) -> dict[str, float]:
    """Train both towers; returns the share of words that a token is nearest to, by tower."""
    import torch

    model: Any = backend.model
    parts = {"vision": model.model.visual, "audio": model.model.audio_tower}
    found: dict[str, float] = {}
    for name, tower in parts.items():
        draw = Random(f"{name}/{seed}")
        optimizer = torch.optim.AdamW(tower.parameters(), lr=_RATE, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
        for _ in range(steps):
            make = _pictures if name == "vision" else _recordings
            loss, found[name] = _lesson(backend, reader, *make(draw))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.zero_grad(set_to_none=True)
    print(json.dumps({"towers": {name: round(share, 3) for name, share in found.items()}}))
    return found


def _pictures(draw: Random) -> tuple[list[Part], list[Words]]:
    """Pictures, and what each of their 2 x 2 tokens shows."""
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
    """Recordings, and what is heard in each of their tokens."""
    parts: list[Part] = []
    words: list[Words] = []
    for _ in range(_RECORDINGS):
        sounds = tuple(draw.choice(SOUNDS) for _ in range(_SECONDS))
        parts.append(Recording(sounds, draw.randrange(2**31)))
        words += [(sound,) for sound in sounds for _ in range(TOKENS_OF_A_SECOND)]
    return parts, words


def _lesson(
    backend: Backend, reader: SampleReader, parts: Sequence[Part], words: Sequence[Words]
) -> tuple[Tensor, float]:
    """How far the tokens are from their words, and the share of words that are nearest."""
    import torch

    model: Any = backend.model
    sample = WorldSample("towers", "towers", tuple(parts), "?", ())
    inputs = backend.collate([backend.encode(as_ready(sample, reader, cut=False))]).inputs
    features = _features(model, inputs)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        vectors = {word: embeddings[_id(backend, word)] for said in words for word in said}
        zero = embeddings.new_zeros(embeddings.shape[1])
        targets = torch.stack([sum((vectors[word] for word in said), zero) for said in words])
    losses = [(features - targets).square().sum(-1).mean()]
    right = total = 0
    for pool in (tuple(COLOURS), SHAPES, SOUNDS):
        rows, wanted = _of_pool(words, pool)
        if not rows:
            continue
        with torch.no_grad():
            names = embeddings[[_id(backend, word) for word in pool]]
        scores = torch.cosine_similarity(features[rows][:, None], names[None], dim=-1)
        target = torch.tensor(wanted, device=features.device)
        losses.append(torch.nn.functional.cross_entropy(scores * _SHARPNESS, target))
        right += int((scores.argmax(-1) == target).sum())
        total += len(wanted)
    return torch.stack(losses).sum(), right / total


def _of_pool(words: Sequence[Words], pool: Sequence[str]) -> tuple[list[int], list[int]]:
    """Tokens that say a word of the pool, and which."""
    said_of = [
        (row, pool.index(word)) for row, said in enumerate(words) for word in said if word in pool
    ]
    return [row for row, _ in said_of], [index for _, index in said_of]


def _features(model: Any, inputs: Any) -> Tensor:
    """What the towers hand to the decoder, [N, D]."""
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
