"""Which device and precision a model is loaded on."""

from __future__ import annotations

import sys
from typing import Any


def hide_progress() -> None:
    """No bars of transformers where nobody watches them."""
    import transformers

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


def choose_device(device: str) -> str:
    """`auto` is the first GPU if there is one, else the CPU."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(dtype: str, device: str) -> Any:
    """A torch dtype; `auto` keeps the checkpoint's on a GPU and takes float32 on a CPU."""
    import torch

    if dtype == "auto":
        return torch.float32 if device == "cpu" else "auto"
    return getattr(torch, dtype)
