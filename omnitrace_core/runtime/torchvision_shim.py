"""Lets transformers' multimodal models and processors load beside a CPU-only torch.

The wheel of torchvision on PyPI is built against CUDA: next to a CPU-only torch its C++ library
does not load, and `import torchvision` then fails ("operator torchvision::nms does not exist"),
although the resizing that processors need is pure torch. Declaring the two operators that the
import looks for, without an implementation, is enough; nobody here calls them.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# torch drops the operators of a Library that is garbage-collected.
_declared: torch.library.Library | None = None


def ensure_torchvision() -> None:
    """Make `import torchvision` work; call before importing models or processors of transformers.

    Declares the missing operators only if torchvision's own library cannot be loaded, so that a
    matching CUDA or CPU build keeps its real ones. Calling it again does nothing.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    global _declared
    import torch

    if _declared is not None or _loads_own_library():
        return
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        declared.define(schema)
    _declared = declared


def _loads_own_library() -> bool:
    """Whether torchvision's C++ operators are there, loading them if they can be."""
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "torchvision is not installed; the image and video processors of transformers need it: "
            "pip install torchvision (the release that matches your torch)"
        )
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        library = Path(spec.origin).with_name(f"_C{suffix}")
        if library.is_file():
            try:
                torch.ops.load_library(str(library))
            except OSError:
                return False
            return True
    return False
