"""What the output head says of the tokens that were produced: log probabilities, and odds.

Symbols: B samples, q tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnitrace_core.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor, nn

# How far the last norm's output may be from its input times weights times one number, relative to
# its size: an RMS norm is that but for rounding, which in bfloat16 is some 0.3 %.
_NORM_TOLERANCE = 0.03


def read_out(
    head: nn.Module, hidden: Tensor, targets: Tensor, most_bytes: int, *, with_odds: bool
) -> tuple[Tensor, Tensor | None]:
    """Log probabilities of the tokens, [B, q] float32, and with `with_odds` d log odds / d hidden.

    The latter, [B, q, D] float32, is the token's row of the head against all others', by their
    probability: log odds = log p - log(1 - p) = logit - logsumexp of the others; unlike log p, they
    do not flatten out where the model is sure. Logits are made once, a few positions at a time.

    hidden: [B, q, D], the decoder's output; targets: [B, q] long.
    """
    import torch

    weight: Any = head.weight
    alive = 3 if with_odds else 2
    step = max(1, most_bytes // (alive * 4 * int(weight.shape[0]) * hidden.shape[0]))
    logprobs, directions = [], []
    for start in range(0, hidden.shape[1], step):
        asked = targets[:, start : start + step]
        logits = head(hidden[:, start : start + step]).float()
        chosen = logits.gather(-1, asked[..., None])
        logprobs.append((chosen - logits.logsumexp(dim=-1, keepdim=True)).squeeze(-1))
        if with_odds:
            logits.scatter_(-1, asked[..., None], float("-inf"))
            others = logits.softmax(dim=-1).to(weight.dtype) @ weight
            directions.append(weight[asked].float() - others.float())
    return torch.cat(logprobs, dim=1), torch.cat(directions, dim=1) if with_odds else None


def norm_scale(norm: Any, given: Tensor | None, hidden: Tensor) -> Tensor:
    """What an RMS norm multiplied its input by, [B, q, D] float32, as if that did not depend on it.

    norm: the module; given, hidden: its input and output, [B, q, D].

    Raises:
        BackendError: there is none, or it is of another kind.
    """
    import torch

    if norm is None or given is None:
        raise BackendError(
            "signals of the odds need the decoder's last norm, `norm`: there is none"
        )
    # Of ones, which are of size 1 as they are, an RMS norm gives its weights.
    weights: Tensor = norm(torch.ones_like(given[:1, :1])).float()
    weighted = given.float() * weights
    wanted = hidden.float()
    size: Tensor = (wanted * weighted).sum(-1, keepdim=True)
    size = size / weighted.square().sum(-1, keepdim=True).clamp_min(1e-30)
    apart = (weighted * size - wanted).norm() / wanted.norm().clamp_min(1e-30)
    if float(apart) > _NORM_TOLERANCE:
        raise BackendError(
            f"signals of the odds follow an RMS norm, and the decoder's last norm, "
            f"{type(norm).__name__}, is none (its output is {float(apart):.0%} off); choose "
            "another signal for this model"
        )
    return weights * size
