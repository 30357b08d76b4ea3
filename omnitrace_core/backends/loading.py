"""Load a model's weights and processor from a local directory or a hub revision.

Weights must be safetensors files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnitrace_core.backends.shipped import model_location
from omnitrace_core.errors import BackendError
from omnitrace_core.options import ModelOptions
from omnitrace_core.runtime.devices import choose_device, choose_dtype, hide_progress
from omnitrace_core.runtime.node_faults import check_mount
from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision


def load_processor(options: ModelOptions) -> Any:
    """Load the model's processor.

    Raises:
        BackendError: a file of the processor or tokenizer is missing or invalid.
        NodeFault: the file system of the model does not answer.
    """
    check_mount(Path(model_location(options.path)) / "config.json")
    enable_transformers_vision()
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(
            model_location(options.path), revision=options.revision
        )
    except (OSError, ValueError, ImportError) as error:
        raise BackendError(
            f"model.path={options.path!r}: the processor cannot be loaded ({error}); the directory "
            "must contain the processor and tokenizer files beside the weights"
        ) from error


def load_model(class_name: str, options: ModelOptions) -> Any:
    """Load the model in evaluation mode onto its device, with frozen parameters.

    class_name: a model class of transformers.

    Raises:
        BackendError: the weights are missing, not safetensors, or of another architecture; or a
            package for `options.attention` is not installed.
        NodeFault: the file system of the model does not answer.
    """
    check_mount(Path(model_location(options.path)) / "config.json")
    enable_transformers_vision()
    import transformers

    hide_progress()
    device = choose_device(options.device)
    try:
        model = getattr(transformers, class_name).from_pretrained(
            model_location(options.path),
            revision=options.revision,
            dtype=choose_dtype(options.dtype, device),
            attn_implementation=options.attention,
            use_safetensors=True,
        )
    except ImportError as error:
        raise BackendError(
            f"model.attention={options.attention!r} is not available here ({error}); install what "
            "it needs, or set model.attention=sdpa"
        ) from error
    except (OSError, ValueError) as error:
        raise BackendError(
            f"model.path={options.path!r}: the weights cannot be loaded as {class_name} ({error}); "
            "give a directory or hub id with safetensors weights of this architecture"
        ) from error
    return model.to(device).eval().requires_grad_(False)
