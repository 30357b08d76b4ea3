"""Slow references for the signals: eager attention, every matrix kept, one backward per token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from omnitrace_core.backends.base import Backend
from omnitrace_core.records import Fold, ReadySample


@dataclass
class Eager:
    """One sample's forward with eager attention.

    attention: [L, H, n_gen, K], the rows of the queries that produce each token; values: per layer
    [H_kv, K, d]; gradient: [H, n_gen, K], of each token's logit by the last layer's attention.
    directions: [n_gen, D], the gradient of each token's log odds by the residual stream.
    logprobs: [n_gen].
    """

    attention: torch.Tensor
    values: list[torch.Tensor]
    gradient: torch.Tensor
    directions: torch.Tensor
    logprobs: torch.Tensor
    layers: Any


def eager_forward(
    model: Any, decoder: Any, inputs: Mapping[str, Any], token_ids: Sequence[int]
) -> Eager:
    """One forward over prompt and response, no cache; then one backward per token.

    model: with eager attention. inputs: its arguments for the prompt and for the response without
    its last token.
    """
    n_gen = len(token_ids)
    values: dict[int, torch.Tensor] = {}
    handles = [
        layer.self_attn.v_proj.register_forward_hook(
            lambda module, args, output, index=index: values.update({index: output})
        )
        for index, layer in enumerate(decoder.layers)
    ]
    norm_input: list[torch.Tensor] = []

    def watch(module: Any, args: Any, output: Any) -> None:
        norm_input.append(args[0].detach())

    handles.append(decoder.norm.register_forward_hook(watch))
    with torch.enable_grad():
        output = model(**inputs, output_attentions=True, use_cache=False)
        for handle in handles:
            handle.remove()
        targets = torch.tensor(list(token_ids))
        logits = output.logits[0, -n_gen:]
        chosen = logits.gather(-1, targets[:, None])[:, 0]
        last = output.attentions[-1]
        by_token = [
            torch.autograd.grad(chosen[t], last, retain_graph=True)[0][0, :, t - n_gen]
            for t in range(n_gen)
        ]
    attention = torch.stack([item[0, :, -n_gen:].detach() for item in output.attentions])
    slots = attention.shape[-1]
    groups = decoder.config.num_key_value_heads
    per_head = [
        values[index][0].detach().view(slots, groups, -1).transpose(0, 1)
        for index in range(len(decoder.layers))
    ]
    return Eager(
        attention=attention,
        values=per_head,
        gradient=torch.stack(by_token, dim=1),
        directions=_odds_directions(
            model.lm_head, decoder.norm, norm_input[0][0, -n_gen:], targets
        ),
        logprobs=logits.detach().log_softmax(-1).gather(-1, targets[:, None])[:, 0],
        layers=decoder.layers,
    )


def _odds_directions(
    head: Any, norm: Any, before_norm: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Gradient of each token's log odds with respect to the residual stream, [n_gen, D].

    before_norm: [n_gen, D], the input of the last norm, whose root mean square is a constant here.
    """
    directions = []
    for norm_input, target in zip(before_norm, targets, strict=True):
        stream = norm_input.detach().requires_grad_()
        with torch.enable_grad():
            scale = (stream.square().mean() + norm.variance_epsilon).rsqrt().detach()
            logits = head(norm.weight * stream * scale).float()
            others = torch.cat([logits[:target], logits[target + 1 :]])
            odds = logits[target] - others.logsumexp(0)
        directions.append(torch.autograd.grad(odds, stream)[0])
    return torch.stack(directions)


def attmean(eager: Eager) -> torch.Tensor:
    """Mean over layers and heads, [n_gen, K]."""
    return eager.attention.mean(dim=(0, 1))


def attraw(eager: Eager) -> torch.Tensor:
    """Mean over the heads of the last layer, [n_gen, K]."""
    return eager.attention[-1].mean(dim=0)


def attgrads(eager: Eager) -> torch.Tensor:
    """ReLU of the heads' mean of attention times gradient, last layer."""
    return (eager.attention[-1] * eager.gradient).mean(dim=0).relu()


def attnorm(eager: Eager, first_layer: int = 0) -> torch.Tensor:
    """Attention times the norm of the value that `o_proj` carries, layer by layer, head by head."""
    n_layers, n_heads = eager.attention.shape[:2]
    total = torch.zeros_like(eager.attention[0, 0])
    for layer in range(first_layer, n_layers):
        groups, _, width = eager.values[layer].shape
        weight = eager.layers[layer].self_attn.o_proj.weight.detach()
        for head in range(n_heads):
            value = eager.values[layer][head * groups // n_heads]
            carried = value @ weight[:, head * width : (head + 1) * width].T
            total += eager.attention[layer, head] * carried.norm(dim=-1)
    return total / ((n_layers - first_layer) * n_heads)


def attodds(eager: Eager) -> torch.Tensor:
    """ReLU of attention times what the carried value adds to the log odds, all layers and heads."""
    n_layers, n_heads = eager.attention.shape[:2]
    total = torch.zeros_like(eager.attention[0, 0])
    for layer in range(n_layers):
        groups, _, width = eager.values[layer].shape
        weight = eager.layers[layer].self_attn.o_proj.weight.detach()
        for head in range(n_heads):
            value = eager.values[layer][head * groups // n_heads]
            carried = value @ weight[:, head * width : (head + 1) * width].T
            total += eager.attention[layer, head] * (eager.directions @ carried.T)
    return total.relu()


def attboth(eager: Eager) -> torch.Tensor:
    """The mean of two rows, each scaled to sum to 1 over all slots."""
    rows = torch.empty_like(eager.attention[0, 0])
    for t, (attention, odds) in enumerate(zip(attmean(eager), attodds(eager), strict=True)):
        rows[t] = (attention / attention.sum() + odds / odds.sum()) / 2
    return rows


ROWS: dict[str, Callable[[Eager], torch.Tensor]] = {
    "attmean": attmean,
    "attraw": attraw,
    "attgrads": attgrads,
    "attnorm": attnorm,
    "attodds": attodds,
    "attboth": attboth,
}
# Largest difference allowed, in units of the row's maximum.
TOLERANCE = {"attgrads": 1e-4, "attodds": 1e-4, "attboth": 1e-4}


class EagerOracle:
    """The weights of a backend with eager attention: one sample per forward, without a cache."""

    def __init__(self, backend: Backend, path: str) -> None:
        self.backend = backend
        self.model: Any = (
            type(backend.model)
            .from_pretrained(path, attn_implementation="eager", dtype=torch.float32)
            .eval()
        )

    def forward(self, ready: ReadySample, token_ids: Sequence[int]) -> tuple[Eager, torch.Tensor]:
        """The eager forward, and the unit of each prompt position [P]."""
        prepared = self.backend.prepare([ready])
        inputs: dict[str, Any] = dict(prepared.inputs)
        response = torch.tensor([list(token_ids[:-1])], dtype=torch.long)
        inputs["input_ids"] = torch.cat([prepared.input_ids, response], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        decoder = self.model.model.language_model
        return eager_forward(self.model, decoder, inputs, token_ids), prepared.unit_index[0]


def slow_fold(rows: torch.Tensor, unit_index: torch.Tensor, n_units: int) -> Fold:
    """Algorithm 1 (paper) as loops over tokens and positions. rows: [n_gen, K]."""
    values = rows.double().numpy()
    index = unit_index.numpy()
    n_gen, n_prompt = values.shape[0], index.shape[0]
    mass = np.zeros((n_gen, n_units))
    peak = np.zeros((n_gen, n_units))
    markup = np.zeros(n_gen)
    for t in range(n_gen):
        for i in range(n_prompt):
            if index[i] < 0:
                markup[t] += values[t, i]
            else:
                mass[t, index[i]] += values[t, i]
                peak[t, index[i]] = max(peak[t, index[i]], values[t, i])
    generated = values[:, n_prompt:].sum(axis=1)
    return Fold(*(a.astype(np.float32) for a in (mass, peak, markup, generated)))
