"""Choose the device and the precision that a model is loaded with."""

from __future__ import annotations

import sys
from typing import Any


def hide_progress() -> None:
    """Switch off the progress bars of transformers unless stderr is a terminal."""
    import transformers

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


def choose_device(device: str) -> str:
    """The device's name; `auto` means the first GPU if there is one, else the CPU."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_dtype(dtype: str, device: str) -> Any:
    """The torch dtype of this name.

    `auto` means float32 on a CPU. Elsewhere it stays "auto", by which transformers loads the
    checkpoint's own dtype.
    """
    import torch

    if dtype == "auto":
        return torch.float32 if device == "cpu" else "auto"
    return getattr(torch, dtype)
