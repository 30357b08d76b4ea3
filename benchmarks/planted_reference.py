"""The causal reference: what each token loses when a unit is taken away (DESIGN section 7).

A unit is hidden from every position behind it, and all that comes after is computed anew, so that
copies of it in other units' positions go too. One row of a batch per unit.

Symbols: m units, P prompt positions, n response tokens, T = P + n - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omnitrace_core.backends.base import Backend
from omnitrace_core.records import ReadySample


class _Stopped(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Embedded:
    """What the decoder is given for prompt and response.

    embeddings: [1, T, D]; positions: the rotary position ids, [3 or 4, 1, T]; unit_index: [P].
    """

    embeddings: torch.Tensor
    positions: torch.Tensor
    unit_index: torch.Tensor


def embed(backend: Backend, ready: ReadySample, token_ids: Sequence[int]) -> Embedded:
    """Run the towers alone. token_ids: the response; its last token asks for nothing."""
    prepared = backend.prepare([ready])
    inputs: dict[str, Any] = dict(prepared.inputs)
    asked = torch.tensor([list(token_ids[:-1])], dtype=torch.long)
    inputs["input_ids"] = torch.cat([prepared.input_ids, asked], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    taken: dict[str, Any] = {}

    def take(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        taken.update(kwargs)
        raise _Stopped

    handle = backend.decoder.register_forward_pre_hook(take, with_kwargs=True)
    try:
        with torch.no_grad():
            backend.model.model(**inputs, use_cache=False)
    except _Stopped:
        pass
    finally:
        handle.remove()
    return Embedded(taken["inputs_embeds"], taken["position_ids"], prepared.unit_index[0])


def leave_one_out(
    backend: Backend, ready: ReadySample, token_ids: Sequence[int]
) -> NDArray[np.float32]:
    """How much log probability each token loses without each unit, [m, n] float32."""
    given = embed(backend, ready, token_ids)
    rows, length = len(ready.units) + 1, given.embeddings.shape[1]
    mask = torch.ones(rows, length, dtype=torch.long)
    prompt = given.unit_index.shape[0]
    for unit in range(rows - 1):
        mask[unit + 1, :prompt][given.unit_index == unit] = 0
    with torch.no_grad():
        hidden = backend.decoder(
            inputs_embeds=given.embeddings.expand(rows, -1, -1),
            position_ids=given.positions.expand(-1, rows, -1),
            attention_mask=mask,
            use_cache=False,
        ).last_hidden_state[:, prompt - 1 :]
        scores = backend.output_head(hidden).float().log_softmax(dim=-1)
    targets = torch.tensor(list(token_ids)).expand(rows, -1)[..., None]
    logprobs = scores.gather(-1, targets).squeeze(-1)
    lost: NDArray[np.float32] = (logprobs[0] - logprobs[1:]).numpy()
    return lost
