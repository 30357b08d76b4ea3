"""The slow, published methods to get the rows, for comparison with ours.

Symbols: P prompt positions, n response tokens, K = P + n slots, V vocabulary. One sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.tracing_cases import Parity

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.tracing_model import Prompt


def attmean(attentions: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The row [P + t] of each response token t, from the `attentions` that `generate` returns.

    attentions: by step and layer, [1, H, queries, keys]; a step's last query produced its token.
    """
    import torch

    return [
        torch.stack([layer[0, :, -1].float() for layer in step]).mean(dim=(0, 1))
        for step in attentions
    ]


def attgrads(model: Any, prompt: Prompt, response: Sequence[int], step: int) -> Tensor:
    """The row [P + step] of one response token: ReLU of the heads' mean of attention x gradient.

    One forward pass over the prompt and the response before the token, with its graph; one backward
    pass from the token's logit to the last layer's attention. `logit.backward()` would continue
    through all layers and weights, which takes longer and is not needed for the method.
    model: has eager attention and parameters that require gradients.
    """
    import torch

    before = torch.tensor([list(response[:step])], dtype=torch.long)
    input_ids = prompt.inputs["input_ids"]
    input_ids = torch.cat([input_ids, before.to(input_ids.device)], dim=1)
    output = model(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        output_attentions=True,
        use_cache=False,
    )
    attention = output.attentions[-1]
    (gradient,) = torch.autograd.grad(output.logits[0, -1, response[step]], attention)
    row = attention[0, :, -1].detach().float() * gradient[0, :, -1].float()
    return row.mean(dim=0).relu()


def spread(n_tokens: int, steps: int) -> list[int]:
    """Response tokens spread evenly from first to last, so that their mean cost is that of all."""
    count = min(steps, n_tokens)
    if count == 1:
        return [n_tokens // 2]
    return [index * (n_tokens - 1) // (count - 1) for index in range(count)]


def compare(wanted: Sequence[Tensor], ours: Tensor) -> Parity:
    """Compare rows. wanted: one row per query, of its keys; ours: [rows, K], padded with zeros."""
    worst, same = 0.0, 0
    for reference, row in zip(wanted, ours, strict=True):
        seen = row[: len(reference)].to(reference.device)
        worst = max(worst, float((seen - reference).abs().max() / reference.max()))
        same += int(seen.argmax() == reference.argmax())
    return Parity(worst, same, len(wanted))
