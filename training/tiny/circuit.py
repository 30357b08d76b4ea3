"""A previous-token circuit planted at initialisation, so that lookups form in minutes.

Without it, text lookups stay at chance for as long as a laptop's training takes. It is a start, not
an answer: what to say, and where to look for it in pictures and clips, is learned, and so is what
becomes of these weights. In layer 0 some heads look a fixed number of tokens back by their rotary
phase alone and copy the word they find, through one random code, into subspaces of the residual
stream that nothing else begins with: one for what is asked, two for what stands before a word and
before a sound. In layer 1 queries read the first, the keys of each group one of the others or the
word itself, and the values hand on a word.

Planting biases every comparison of layers, heads and rows; the model card says so.

Symbols: D model width, d head width, f a rotary frequency pair, theta the rotary base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

# A word's ids: without and with the space before it.
Forms = tuple[int, int]
# How far back heads of layer 0 look: words of a sentence, and one second of sound. Heads that share
# their keys tell either near or far positions apart.
LOOK_BACK = {0: 1, 1: 2, 2: 3, 4: 25}
# Distances at which queries ask for a word; at which answers stand behind theirs, for sentences and
# for sounds.
ASKED = (1, 2, 3)
KEPT, KEPT_OF_SOUND = (2, 3), (25,)
# Pairs that tell neighbours apart, and (for a second) those that tell seconds apart.
NEAR_PAIRS, FAR_PAIRS = range(4), range(2, 8)
CODE = 32  # width of the code, and of each subspace
_SHARP = 5.5  # size of the planted biases: the softmax puts nearly all on one token
_COPY = 0.18  # size of a copy in the residual stream, against embeddings of norm about 1
_KIND = 0.5  # size of what words of a kind share
_MATCH = 1.6  # size of the planted products of layer 1
_QUIET = 0.1  # what is left of random weights that would drown the circuit


def plant(model: Any, generator: Generator, kinds: Sequence[Sequence[Forms]]) -> None:
    """Plant the circuit into a thinker of random weights, in place.

    kinds: the words that can be looked up, by what they name (places, colours); the code does not
    see any other.
    """
    import torch

    decoder = model.model.language_model
    width, theta = decoder.config.hidden_size, decoder.config.rope_parameters["rope_theta"]
    with torch.no_grad():
        basis = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
        code, asked, kept, kept_of_sound = basis[: 4 * CODE].split(CODE)
        words = model.get_input_embeddings().weight
        others = torch.ones(words.shape[0], dtype=torch.bool)
        outside = torch.randn(len(kinds) + 1, width, generator=generator)
        outside -= outside @ code.T @ code
        outside *= _KIND / outside.norm(dim=-1, keepdim=True)
        for kind, shared in zip(kinds, outside[1:], strict=True):
            # Words of a kind have something in common, outside the code: what tells a place from
            # the thing that is in it. So have words that begin a line.
            bare, spaced = (list(ids) for ids in zip(*kind, strict=True))
            words[spaced] += shared
            words[bare] = words[spaced] + outside[0]
            others[bare + spaced] = False
        for empty, of in ((torch.cat([asked, kept, kept_of_sound]), slice(None)), (code, others)):
            words[of] -= words[of] @ empty.T @ empty
        targets = {back: torch.zeros(CODE, width) for back in LOOK_BACK.values()}
        for backs, subspace in ((ASKED, asked), (KEPT, kept), (KEPT_OF_SOUND, kept_of_sound)):
            for back in backs:
                targets[back] += subspace
        _plant_copies(decoder.layers[0].self_attn, code, targets, theta)
        # Of each group: where its keys look for what is asked, and what its values hand on.
        groups = ((kept, code), (kept_of_sound, code), (code, code), (code, kept))
        for group, (sought, found) in enumerate(groups):
            _plant_match(decoder.layers[1].self_attn, group, asked, sought, generator)
            _plant_value(decoder.layers[1].self_attn, group, found, code)
        for layer in decoder.layers:
            layer.mlp.down_proj.weight *= _QUIET


def _plant_copies(attention: Any, code: Tensor, targets: dict[int, Tensor], theta: float) -> None:
    """Heads that look back and copy. code: [CODE, D]; targets: where each distance
    goes, [CODE, D].
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
    """A query bias that meets a key bias of `back` 0 best when the key stands `back` tokens before.

    Rotation turns pair f of position i by i * theta ** (-2f / d), so the two meet as the cosine of
    (i - j - back) times that.
    """
    import torch

    bias = torch.zeros(width)
    for f in pairs:
        angle = back * theta ** (-2 * f / width)
        bias[f] = _SHARP * math.cos(angle)
        bias[f + width // 2] = -_SHARP * math.sin(angle)
    return bias


def _plant_match(
    attention: Any, group: int, asked: Tensor, sought: Tensor, generator: Generator
) -> None:
    """A group compares what is asked with another subspace, [CODE, D] each.

    In rotary pairs too slow to feel distances.
    """
    import torch

    width, per_group = attention.head_dim, attention.num_key_value_groups
    slow = torch.tensor([*range(width // 4, width // 2), *range(3 * width // 4, width)])
    turned = torch.linalg.qr(torch.randn(CODE, CODE, generator=generator)).Q[: len(slow)]
    attention.k_proj.weight[group * width : (group + 1) * width] *= 3 * _QUIET
    attention.k_proj.weight[slow + group * width] = turned @ sought * _MATCH
    for head in range(group * per_group, (group + 1) * per_group):
        attention.q_proj.weight[head * width : (head + 1) * width] *= 3 * _QUIET
        attention.q_proj.weight[slow + head * width] = turned @ asked * _MATCH


def _plant_value(attention: Any, group: int, found: Tensor, code: Tensor) -> None:
    """A group that hands on the word kept where it looks. found: [CODE, D], where that is kept."""
    width, per_group = attention.head_dim, attention.num_key_value_groups
    attention.v_proj.weight[group * width : (group + 1) * width] = found
    for head in range(group * per_group, (group + 1) * per_group):
        attention.o_proj.weight[:, head * width : (head + 1) * width] = code.T * _COPY
