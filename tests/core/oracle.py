"""The slow, obvious reference: eager attention with every matrix kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from omnitrace_core.backends.base import Backend
from omnitrace_core.records import Fold, ReadySample


class EagerOracle:
    """The same weights with eager attention; one sample at a time, one forward, no cache."""

    def __init__(self, backend: Backend, path: str) -> None:
        self.backend = backend
        self.model: Any = (
            type(backend.model)
            .from_pretrained(path, attn_implementation="eager", dtype=torch.float32)
            .eval()
        )

    def rows(
        self, ready: ReadySample, token_ids: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attention rows [L, H, n_gen, K] of the queries that produce each token, the unit of each
        prompt position [P], and the log probability of each token [n_gen]."""
        prepared = self.backend.prepare([ready])
        inputs: dict[str, Any] = dict(prepared.inputs)
        n_prompt = prepared.input_ids.shape[1]
        asked = torch.tensor([list(token_ids[:-1])], dtype=torch.long)
        inputs["input_ids"] = torch.cat([prepared.input_ids, asked], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            output = self.model(**inputs, output_attentions=True)
        rows = torch.stack(output.attentions)[:, 0, :, n_prompt - 1 :]
        logprobs = output.logits[0, n_prompt - 1 :].log_softmax(-1)
        targets = torch.tensor(list(token_ids))[:, None]
        return rows, prepared.unit_index[0], logprobs.gather(-1, targets)[:, 0]


def slow_fold(rows: torch.Tensor, unit_index: torch.Tensor, n_units: int) -> Fold:
    """Loops over tokens and units, straight from Algorithm 1. rows: [n_gen, K]."""
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
