"""The causal reference: how much log probability tokens lose without a unit.

A unit is masked for every later position, and all later positions are computed again, so that
copies of the unit in other units' positions disappear too. The batch has one row per unit.

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
    """The decoder's inputs for prompt and response.

    embeddings: [1, T, D]; positions: the rotary position ids, [3 or 4, 1, T]; unit_index: [P].
    """

    embeddings: torch.Tensor
    positions: torch.Tensor
    unit_index: torch.Tensor


def embed(backend: Backend, ready: ReadySample, token_ids: Sequence[int]) -> Embedded:
    """Run only the towers. token_ids: the response; its last token is not an input."""
    prepared = backend.prepare([ready])
    inputs: dict[str, Any] = dict(prepared.inputs)
    response = torch.tensor([list(token_ids[:-1])], dtype=torch.long)
    inputs["input_ids"] = torch.cat([prepared.input_ids, response], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    captured: dict[str, Any] = {}

    def capture(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        captured.update(kwargs)
        raise _Stopped

    handle = backend.decoder.register_forward_pre_hook(capture, with_kwargs=True)
    try:
        with torch.no_grad():
            backend.model.model(**inputs, use_cache=False)
    except _Stopped:
        pass
    finally:
        handle.remove()
    return Embedded(captured["inputs_embeds"], captured["position_ids"], prepared.unit_index[0])


def leave_one_out(
    backend: Backend, ready: ReadySample, token_ids: Sequence[int]
) -> NDArray[np.float32]:
    """The log probability that each token loses without each unit, [m, n] float32."""
    inputs_of_decoder = embed(backend, ready, token_ids)
    rows, length = len(ready.units) + 1, inputs_of_decoder.embeddings.shape[1]
    mask = torch.ones(rows, length, dtype=torch.long)
    prompt = inputs_of_decoder.unit_index.shape[0]
    for unit in range(rows - 1):
        mask[unit + 1, :prompt][inputs_of_decoder.unit_index == unit] = 0
    with torch.no_grad():
        hidden = backend.decoder(
            inputs_embeds=inputs_of_decoder.embeddings.expand(rows, -1, -1),
            position_ids=inputs_of_decoder.positions.expand(-1, rows, -1),
            attention_mask=mask,
            use_cache=False,
        ).last_hidden_state[:, prompt - 1 :]
        scores = backend.output_head(hidden).float().log_softmax(dim=-1)
    targets = torch.tensor(list(token_ids)).expand(rows, -1)[..., None]
    logprobs = scores.gather(-1, targets).squeeze(-1)
    losses: NDArray[np.float32] = (logprobs[0] - logprobs[1:]).numpy()
    return losses
