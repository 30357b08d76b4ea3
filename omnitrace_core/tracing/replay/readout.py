"""Log probabilities of the produced tokens, and the gradient of their log odds.

Symbols: B samples, q tokens, D model width, p the probability of a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnitrace_core.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor, nn

# An RMS norm multiplies its input by its weights and by one number per position. This is how far
# the last norm's output may be from that, relative to its size; rounding in bfloat16 causes about
# 0.3 %.
_NORM_TOLERANCE = 0.03


def read_out(
    head: nn.Module, hidden: Tensor, targets: Tensor, max_bytes: int, *, with_odds: bool
) -> tuple[Tensor, Tensor | None]:
    """Log probabilities [B, q], and if `with_odds` d log odds / d hidden [B, q, D]; both float32.

    log odds = log p - log(1 - p) = logit - logsumexp of the other logits. So the gradient is the
    token's row of the head minus the mean of the other rows, weighted by their probabilities.
    Unlike log p, log odds do not flatten out where the model is sure.

    hidden: [B, q, D], the decoder's output; targets: [B, q] long, the tokens. max_bytes: limit for
    the arrays of vocabulary size; positions are computed in groups that fit into it.
    """
    import torch

    weight: Any = head.weight
    arrays_alive = 3 if with_odds else 2
    step = max(1, max_bytes // (arrays_alive * 4 * int(weight.shape[0]) * hidden.shape[0]))
    logprobs, directions = [], []
    for start in range(0, hidden.shape[1], step):
        tokens = targets[:, start : start + step]
        logits = head(hidden[:, start : start + step]).float()
        chosen = logits.gather(-1, tokens[..., None])
        logprobs.append((chosen - logits.logsumexp(dim=-1, keepdim=True)).squeeze(-1))
        if with_odds:
            logits.scatter_(-1, tokens[..., None], float("-inf"))
            others = logits.softmax(dim=-1).to(weight.dtype) @ weight
            directions.append(weight[tokens].float() - others.float())
    return torch.cat(logprobs, dim=1), torch.cat(directions, dim=1) if with_odds else None


def norm_scale(norm: Any, norm_input: Tensor | None, norm_output: Tensor) -> Tensor:
    """The factors by which an RMS norm multiplied its input, [B, q, D] float32.

    They are the norm's derivative if the root mean square is held fixed. norm: the module;
    norm_input, norm_output: [B, q, D].

    Raises:
        BackendError: the decoder has no module `norm`, or it is not an RMS norm.
    """
    import torch

    if norm is None or norm_input is None:
        raise BackendError(
            "signals of the log odds need the decoder's last norm as its module `norm`, which this "
            "model does not have; choose another signal"
        )
    # The root mean square of ones is 1, so for them the norm returns its weights.
    weights: Tensor = norm(torch.ones_like(norm_input[:1, :1])).float()
    weighted = norm_input.float() * weights
    wanted = norm_output.float()
    size: Tensor = (wanted * weighted).sum(-1, keepdim=True)
    size = size / weighted.square().sum(-1, keepdim=True).clamp_min(1e-30)
    error = (weighted * size - wanted).norm() / wanted.norm().clamp_min(1e-30)
    if float(error) > _NORM_TOLERANCE:
        raise BackendError(
            f"signals of the log odds need an RMS norm, but the decoder's last norm, "
            f"{type(norm).__name__}, is not one (its output is {float(error):.0%} off); choose "
            "another signal for this model"
        )
    return weights * size
