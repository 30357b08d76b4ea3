"""A half-precision model, run in float32: its weights stay, what flows through them is wider.

What a bfloat16 model rounds on its way (keys, values, the residual stream) is in its attention rows
and gradients. For who wants those of the weights themselves, the decoder runs once more in float32:
each weight is raised when a product needs it and dropped again. The towers that read media are left
in the model's precision.
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
    """Inside, this decoder takes its inputs, and gives its outputs, in float32.

    Matrix products, `linear` and norms of float32 with narrower tensors are done in float32 (those
    of the decoders of transformers; a layer with kernels of its own raises torch's error). A
    caller's autocast is off, and attention that knows only half precision is replaced.
    """
    import torch

    config: Any = decoder.config
    before = config._attn_implementation
    device = next(decoder.parameters()).device.type
    handle = decoder.register_forward_pre_hook(_widen_inputs, with_kwargs=True)
    try:
        if before.startswith("flash"):
            config._attn_implementation = "sdpa"
        with torch.autocast(device, enabled=False), _mode()():
            yield
    finally:
        config._attn_implementation = before
        handle.remove()


def _widen_inputs(
    decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The decoder's arguments with embeddings in float32 in place of tokens."""
    embeddings: Tensor | None = kwargs.get("inputs_embeds")
    if embeddings is None:
        ids, args = (args[0], args[1:]) if args else (kwargs["input_ids"], args)
        kwargs = {name: value for name, value in kwargs.items() if name != "input_ids"}
        embeddings = decoder.get_input_embeddings()(ids)  # type: ignore[operator]
        args = (None, *args) if args else ()
    return args, {**kwargs, "inputs_embeds": embeddings.float()}


@cache
def _mode() -> type:
    """Made on first use: torch is heavy to import."""
    import torch
    from torch.overrides import TorchFunctionMode

    functional = torch.nn.functional
    products = {functional.linear, functional.layer_norm, functional.rms_norm}
    products |= {torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum}
    names = ("matmul", "mm", "bmm", "addmm", "baddbmm", "__matmul__", "__rmatmul__")
    products |= {getattr(torch.Tensor, name) for name in names}

    class Widen(TorchFunctionMode):
        """Raises every operand of a product to float32 if one of them is."""

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            if func in products:
                operands = [*args, *(kwargs or {}).values()]
                if any(_dtype(operand) == torch.float32 for operand in operands):
                    args = tuple(map(_raised, args))
                    kwargs = {name: _raised(value) for name, value in (kwargs or {}).items()}
            return func(*args, **(kwargs or {}))

    return Widen


def _dtype(operand: Any) -> Any:
    return getattr(operand, "dtype", None)


def _raised(operand: Any) -> Any:
    import torch

    narrow = isinstance(operand, torch.Tensor) and operand.is_floating_point()
    return operand.float() if narrow else operand
