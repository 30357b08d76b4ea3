"""Plant a previous-token circuit at initialisation, so that lookups form in minutes of training.

Without it, text lookups stay at chance for as long as training on a laptop takes. The circuit is a
start only: what to say, and where to look for it in pictures and clips, is learned, and training
changes the planted weights too.

In layer 0, some heads attend a fixed number of tokens back by their rotary phase alone. They copy
the word that they find, through one random code, into subspaces of the residual stream that are
empty at the start: one for the word that a question is about (the query), two for the word that
stands before another word or before a sound (the keys). In layer 1, queries read the first
subspace, the keys of each group read one of the others or the word itself, and the values copy a
word to the output.

Planting biases every comparison of layers, heads and rows; the model card says so.

Symbols: D model width, d head width, f a rotary frequency pair, theta the rotary base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

# Token ids of a word, without and with a space before it.
Forms = tuple[int, int]
# By head of layer 0, how many tokens back it attends: words of a sentence, or one second of sound.
# Heads that share their keys distinguish either near or far positions.
LOOK_BACK = {0: 1, 1: 2, 2: 3, 4: 25}
# How far before a query its key word stands; how far before an answer its key word stands, in
# sentences and in sounds.
QUERY_BACK = (1, 2, 3)
KEY_BACK, SOUND_KEY_BACK = (2, 3), (25,)
# Rotary pairs that distinguish neighbouring tokens, and those that distinguish seconds of sound.
NEAR_PAIRS, FAR_PAIRS = range(4), range(2, 8)
CODE = 32  # width of the code, and of each subspace
_SHARP = 5.5  # size of the planted biases: the softmax puts nearly all weight on one token
_COPY = 0.18  # size of a copy in the residual stream, against embeddings of norm about 1
_KIND = 0.5  # size of the vector that all words of a kind share
_MATCH = 1.6  # size of the planted products of layer 1
_QUIET = 0.1  # factor for random weights that would otherwise hide the circuit


def plant(model: Any, generator: Generator, kinds: Sequence[Sequence[Forms]]) -> None:
    """Plant the circuit into a thinker of random weights, in place.

    kinds: the words that can be looked up, grouped by what they name (places, colours, ...). All
    other words are invisible to the code.
    """
    import torch

    decoder = model.model.language_model
    width, theta = decoder.config.hidden_size, decoder.config.rope_parameters["rope_theta"]
    with torch.no_grad():
        basis = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
        code, query, key, sound_key = basis[: 4 * CODE].split(CODE)
        words = model.get_input_embeddings().weight
        is_other = torch.ones(words.shape[0], dtype=torch.bool)
        outside = torch.randn(len(kinds) + 1, width, generator=generator)
        outside -= outside @ code.T @ code
        outside *= _KIND / outside.norm(dim=-1, keepdim=True)
        for kind, shared in zip(kinds, outside[1:], strict=True):
            # Words of a kind share a vector outside the code, which distinguishes a place from the
            # thing in it. Words that begin a line share another one.
            bare, spaced = (list(ids) for ids in zip(*kind, strict=True))
            words[spaced] += shared
            words[bare] = words[spaced] + outside[0]
            is_other[bare + spaced] = False
        for cleared, rows in ((torch.cat([query, key, sound_key]), slice(None)), (code, is_other)):
            words[rows] -= words[rows] @ cleared.T @ cleared
        targets = {back: torch.zeros(CODE, width) for back in LOOK_BACK.values()}
        for backs, subspace in ((QUERY_BACK, query), (KEY_BACK, key), (SOUND_KEY_BACK, sound_key)):
            for back in backs:
                targets[back] += subspace
        _plant_copies(decoder.layers[0].self_attn, code, targets, theta)
        # For each group: the subspace that its keys read, and the one that its values copy.
        groups = ((key, code), (sound_key, code), (code, code), (code, key))
        for group, (read, copied) in enumerate(groups):
            _plant_match(decoder.layers[1].self_attn, group, query, read, generator)
            _plant_value(decoder.layers[1].self_attn, group, copied, code)
        for layer in decoder.layers:
            layer.mlp.down_proj.weight *= _QUIET


def _plant_copies(attention: Any, code: Tensor, targets: dict[int, Tensor], theta: float) -> None:
    """Plant the heads of layer 0 that attend back and copy.

    code: [CODE, D]. targets: by distance, the subspace to copy to, [CODE, D].
    """
    width = attention.head_dim
    per_group = attention.num_key_value_groups
    attention.o_proj.weight *= _QUIET
    for head, back in LOOK_BACK.items():
        pairs = NEAR_PAIRS if back < 10 else FAR_PAIRS
        rows = slice(head * width, (head + 1) * width)
        attention.q_proj.weight[rows] *= _QUIET
        attention.q_proj.bias[rows] = phase(width, pairs, theta, back)
        group = head // per_group
        keys = slice(group * width, (group + 1) * width)
        attention.k_proj.weight[keys] *= _QUIET
        attention.k_proj.bias[keys] = phase(width, pairs, theta, 0)
        attention.v_proj.weight[keys] = code
        attention.o_proj.weight[:, rows] = targets[back].T * _COPY


def phase(width: int, pairs: Sequence[int], theta: float, back: int) -> Tensor:
    """A query bias [d] that matches the key bias of `back` 0 best `back` tokens before.

    Rotation turns pair f of position i by i * theta ** (-2f / d), so the product of a query at i
    and a key at j is the sum over f of cos((i - j - back) * theta ** (-2f / d)).
    """
    import torch

    bias = torch.zeros(width)
    for f in pairs:
        angle = back * theta ** (-2 * f / width)
        bias[f] = _SHARP * math.cos(angle)
        bias[f + width // 2] = -_SHARP * math.sin(angle)
    return bias


def _plant_match(
    attention: Any, group: int, query: Tensor, read: Tensor, generator: Generator
) -> None:
    """Let a group compare the query subspace with the one it reads, [CODE, D] each.

    It uses rotary pairs that turn too slowly for distance to matter.
    """
    import torch

    width, per_group = attention.head_dim, attention.num_key_value_groups
    slow = torch.tensor([*range(width // 4, width // 2), *range(3 * width // 4, width)])
    rotation = torch.linalg.qr(torch.randn(CODE, CODE, generator=generator)).Q[: len(slow)]
    attention.k_proj.weight[group * width : (group + 1) * width] *= 3 * _QUIET
    attention.k_proj.weight[slow + group * width] = rotation @ read * _MATCH
    for head in range(group * per_group, (group + 1) * per_group):
        attention.q_proj.weight[head * width : (head + 1) * width] *= 3 * _QUIET
        attention.q_proj.weight[slow + head * width] = rotation @ query * _MATCH


def _plant_value(attention: Any, group: int, copied: Tensor, code: Tensor) -> None:
    """Let a group copy the word in the subspace `copied`, [CODE, D], to the output."""
    width, per_group = attention.head_dim, attention.num_key_value_groups
    attention.v_proj.weight[group * width : (group + 1) * width] = copied
    for head in range(group * per_group, (group + 1) * per_group):
        attention.o_proj.weight[:, head * width : (head + 1) * width] = code.T * _COPY
