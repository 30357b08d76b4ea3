"""A previous-token circuit planted at initialisation, so that lookups form in minutes.

Without it, text lookups stay at chance for as long as a laptop's training takes. It is a start, not
an answer: which word to copy, where to look and what to say are learned. In layer 0 some heads look
a fixed number of tokens back by their rotary phase alone, and write what they find there, through
one random code, into two subspaces of the residual stream that nothing else begins with. In layer 1
the queries of some heads read the first and their keys the second: "the word before me" meets "the
word before it".

Planting biases every comparison of layers, heads and rows; the model card says so.

Symbols: D model width, d head width, f a rotary frequency pair, theta the rotary base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

# How far back each head of layer 0 looks: words of a sentence, and one second of sound.
LOOK_BACK = (1, 2, 3, 4, 25)
# Pairs that tell neighbours apart, and (for a second) those that tell seconds apart.
NEAR_PAIRS, FAR_PAIRS = range(4), range(2, 8)
CODE = 32  # width of the code, and of either subspace
_SHARP = 5.5  # size of the planted biases: the softmax puts nearly all on one token
_COPY = 0.18  # size of a copy in the residual stream, against embeddings of norm about 1
_MATCH = 2.0  # size of the planted products of layer 1
_QUIET = 0.1  # what is left of random weights that would drown the circuit


def plant(model: Any, generator: Generator) -> None:
    """Plant the circuit into a thinker of random weights, in place."""
    import torch

    decoder = model.model.language_model
    width, theta = decoder.config.hidden_size, decoder.config.rope_parameters["rope_theta"]
    with torch.no_grad():
        basis = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
        asked, kept = basis[:CODE], basis[CODE : 2 * CODE]
        code = torch.linalg.qr(torch.randn(width, CODE, generator=generator)).Q.T
        _plant_copies(decoder.layers[0].self_attn, code, asked, kept, theta)
        _plant_match(decoder.layers[1].self_attn, asked, kept, generator)
        for layer in decoder.layers:
            layer.mlp.down_proj.weight *= _QUIET


def _plant_copies(attention: Any, code: Tensor, asked: Tensor, kept: Tensor, theta: float) -> None:
    """Heads that look back and copy. code: [CODE, D]; asked, kept: [CODE, D], the subspaces."""
    width = attention.head_dim
    per_group = attention.num_key_value_groups
    for head, back in enumerate(LOOK_BACK):
        pairs = NEAR_PAIRS if back < 10 else FAR_PAIRS
        rows = slice(head * width, (head + 1) * width)
        attention.q_proj.weight[rows] *= _QUIET
        attention.q_proj.bias[rows] = phase(width, pairs, theta, back)
        group = head // per_group
        keys = slice(group * width, (group + 1) * width)
        attention.k_proj.weight[keys] *= _QUIET
        attention.k_proj.bias[keys] = phase(width, pairs, theta, 0)
        attention.v_proj.weight[keys] = code
        # A second back is for keys alone: it is sounds that are asked for by what came before.
        target = asked + kept if back < 10 else kept
        attention.o_proj.weight[:, rows] = target.T * _COPY


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


def _plant_match(attention: Any, asked: Tensor, kept: Tensor, generator: Generator) -> None:
    """Half of layer 1's heads compare the codes, in rotary pairs too slow to feel distances."""
    import torch

    width = attention.head_dim
    slow = [*range(width // 4, width // 2), *range(3 * width // 4, width)]
    turned = torch.linalg.qr(torch.randn(CODE, CODE, generator=generator)).Q[: len(slow)]
    n_groups = attention.k_proj.weight.shape[0] // width // 2
    for projection, subspace, n in (
        (attention.q_proj, asked, n_groups * attention.num_key_value_groups),
        (attention.k_proj, kept, n_groups),
    ):
        for head in range(n):
            rows = torch.tensor(slow) + head * width
            projection.weight[head * width : (head + 1) * width] *= 3 * _QUIET
            projection.weight[rows] = turned @ subspace * _MATCH
