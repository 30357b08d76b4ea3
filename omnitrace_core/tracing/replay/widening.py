"""Run a half-precision decoder in float32, without a float32 copy of its weights.

A bfloat16 model rounds keys, values and the residual stream, and its attention rows and gradients
show that rounding. Where the rows of the unrounded weights are wanted, the replay runs the decoder
in float32: each weight is converted when a product needs it, and the copy is dropped afterwards.
The towers that read media stay in the model's precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def widened(decoder: nn.Module) -> Iterator[None]:
    """Inside, this decoder computes in float32, and so are its inputs and outputs.

    Matrix products, `linear` and norms that mix float32 with narrower tensors are computed in
    float32. That covers the decoders of transformers; a layer with custom kernels raises torch's
    own error. A caller's autocast is switched off, and flash attention, which supports only half
    precision, is replaced by SDPA.
    """
    import torch

    config: Any = decoder.config
    before = config._attn_implementation
    device = next(decoder.parameters()).device.type
    handle = decoder.register_forward_pre_hook(_widen_inputs, with_kwargs=True)
    try:
        if before.startswith("flash"):
            config._attn_implementation = "sdpa"
        with torch.autocast(device, enabled=False), _widening_mode()():
            yield
    finally:
        config._attn_implementation = before
        handle.remove()


def _widen_inputs(
    decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The decoder's arguments, with float32 embeddings instead of token ids."""
    embeddings: Tensor | None = kwargs.get("inputs_embeds")
    if embeddings is None:
        ids, args = (args[0], args[1:]) if args else (kwargs["input_ids"], args)
        kwargs = {name: value for name, value in kwargs.items() if name != "input_ids"}
        embeddings = decoder.get_input_embeddings()(ids)  # type: ignore[operator]
        args = (None, *args) if args else ()
    return args, {**kwargs, "inputs_embeds": embeddings.float()}


@cache
def _widening_mode() -> type:
    """The class of the torch function mode; defined on first use: torch is slow to import."""
    import torch
    from torch.overrides import TorchFunctionMode

    functional = torch.nn.functional
    products = {functional.linear, functional.layer_norm, functional.rms_norm}
    products |= {torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum}
    names = ("matmul", "mm", "bmm", "addmm", "baddbmm", "__matmul__", "__rmatmul__")
    products |= {getattr(torch.Tensor, name) for name in names}

    class WideningMode(TorchFunctionMode):
        """Converts all operands of a product to float32 if one of them is float32."""

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            if func in products:
                operands = [*args, *(kwargs or {}).values()]
                if any(_dtype(operand) == torch.float32 for operand in operands):
                    args = tuple(map(_in_float32, args))
                    kwargs = {name: _in_float32(value) for name, value in (kwargs or {}).items()}
            return func(*args, **(kwargs or {}))

    return WideningMode


def _dtype(operand: Any) -> Any:
    return getattr(operand, "dtype", None)


def _in_float32(operand: Any) -> Any:
    import torch

    is_float = isinstance(operand, torch.Tensor) and operand.is_floating_point()
    return operand.float() if is_float else operand
