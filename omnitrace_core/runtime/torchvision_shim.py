"""Make the multimodal classes of transformers importable beside a CPU-only torch.

transformers imports torchvision for its image and video processors. The torchvision wheel on PyPI
is built against CUDA: beside a CPU-only torch its C++ library does not load, and
`import torchvision` fails with "operator torchvision::nms does not exist". The resizing that the
processors need is pure torch, so it is enough to declare the two operators that the import looks
for, without an implementation. Nothing in this project calls them.
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

# torch removes the operators of a Library that is garbage-collected.
_library: torch.library.Library | None = None


def enable_transformers_vision() -> None:
    """Make `import torchvision` work, and with it the multimodal classes of transformers.

    Call it before you import such a model or processor class (`Qwen2_5OmniProcessor`, say) on a
    machine whose torch is CPU-only. It declares the missing operators only if torchvision's own
    C++ library cannot be loaded: a torchvision that matches its torch keeps its real operators.
    A second call does nothing.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    global _library
    import torch

    if _library is not None or _load_compiled_operators():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _library = library


def _load_compiled_operators() -> bool:
    """Load torchvision's C++ library. Returns whether it could be loaded."""
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
