"""The slow, published ways to get the rows, measured beside ours and compared with them.

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
    """Rows [P + t] of each response token t, from what `generate` returns as `attentions`.

    attentions: by step and layer, [1, H, queries, keys]; a step's last query produced its token.
    """
    import torch

    return [
        torch.stack([layer[0, :, -1].float() for layer in step]).mean(dim=(0, 1))
        for step in attentions
    ]


def attgrads(model: Any, prompt: Prompt, response: Sequence[int], step: int) -> Tensor:
    """The row [P + step] of one response token: ReLU of the heads' mean of attention x gradient.

    One forward over the prompt and the response before the token, which keeps its graph; one
    backward of the token's logit to the last layer's attention. `logit.backward()` would go on to
    all layers and weights, which takes longer and which the method does not need.
    model: attends eagerly, its parameters require gradients.
    """
    import torch

    said = torch.tensor([list(response[:step])], dtype=torch.long)
    input_ids = prompt.inputs["input_ids"]
    input_ids = torch.cat([input_ids, said.to(input_ids.device)], dim=1)
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
    """Some of the response tokens, from the first to the last: their mean cost is that of all."""
    count = min(steps, n_tokens)
    if count == 1:
        return [n_tokens // 2]
    return [index * (n_tokens - 1) // (count - 1) for index in range(count)]


def compare(wanted: Sequence[Tensor], ours: Tensor) -> Parity:
    """wanted: rows as long as what their query saw; ours: [rows, K], zeros behind."""
    worst, same = 0.0, 0
    for reference, row in zip(wanted, ours, strict=True):
        seen = row[: len(reference)].to(reference.device)
        worst = max(worst, float((seen - reference).abs().max() / reference.max()))
        same += int(seen.argmax() == reference.argmax())
    return Parity(worst, same, len(wanted))
