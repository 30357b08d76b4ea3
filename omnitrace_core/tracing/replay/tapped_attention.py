"""Replace one decoder's attention by SDPA that passes every layer's inputs to a tap.

`tapped` switches a decoder, and nothing else in the process, to this attention. The decoder's
forward then takes a `Tap` as its argument `omnitrace_tap`.

Symbols: B samples, q queries of one forward, K cache slots, H heads, H_kv key heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from omnitrace_core.errors import BackendError
from omnitrace_core.tracing.replay.layer_reader import AttentionCall

if TYPE_CHECKING:
    from torch import Tensor, nn

# Name under which transformers knows the tapped attention and its mask function.
TAPPED = "omnitrace_tapped_sdpa"
# Arguments of an attention function that change its rows in a way the tap does not reproduce.
_UNSUPPORTED_ARGUMENTS = ("s_aux", "softcap", "position_bias")


class _Tap(Protocol):
    """What the tapped attention needs of `tap.Tap`."""

    def observe(self, call: AttentionCall, attend: Callable[[], Tensor]) -> Tensor: ...


@contextmanager
def tapped(decoder: nn.Module) -> Iterator[None]:
    """Switch this decoder to the tapped attention, and back at the end, also after an exception."""
    register_tapped_attention()
    config: Any = decoder.config
    before = config._attn_implementation
    config._attn_implementation = TAPPED
    try:
        yield
    finally:
        config._attn_implementation = before


def register_tapped_attention() -> None:
    """Make the tapped attention and its mask function known to transformers.

    Both are needed: without a mask function of the same name, transformers passes no mask, and
    padding would be attended to.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(TAPPED, _tapped_attention)
    AttentionMaskInterface.register(TAPPED, _tapped_mask)


def _tapped_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """SDPA with identical results; passes q, k, v to the tap, which may compute the rows itself."""
    import torch

    tap: _Tap | None = kwargs.pop("omnitrace_tap", None)
    if tap is None:
        raise BackendError("the tapped attention was called outside a replay")
    if (
        mask is None
        or mask.dtype != torch.bool
        or mask.shape[-2:] != (query.shape[2], key.shape[2])
    ):
        raise BackendError(
            "no mask reached the tapped attention, so padding would be attended to: its mask "
            f"function must be registered with it under {TAPPED!r}"
        )
    for name in _UNSUPPORTED_ARGUMENTS:
        if kwargs.get(name) is not None:
            raise BackendError(
                f"this model's attention uses {name}, which the replay does not support; this "
                "model cannot be traced"
            )
    call = AttentionCall(module, query, key, value, mask, kwargs["scaling"])

    return tap.observe(call, partial(_attend, call)), None


def _attend(call: AttentionCall) -> Tensor:
    """The output of SDPA, [B, q, H, d].

    Keys and values are not repeated for the heads of a group; the queries of the group are stacked
    instead.
    """
    import torch

    batch, heads, queries, width = call.query.shape
    groups = call.key.shape[1]
    per_group = heads // groups
    output = torch.nn.functional.scaled_dot_product_attention(
        call.query.reshape(batch, groups, per_group * queries, width),
        call.key,
        call.value,
        attn_mask=call.visible.repeat(1, 1, per_group, 1),
        scale=call.scaling,
    )
    return output.view(batch, heads, queries, -1).transpose(1, 2)


def _tapped_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """SDPA's mask, always as a tensor, because the tap reads it too."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})
