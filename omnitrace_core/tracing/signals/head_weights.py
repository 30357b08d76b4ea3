"""Weights per (layer, head) from a file, for the signal `heads:FILE`.

Learned or chosen weights come as `.json` (a list of one list per layer, or an object that holds it
under `weights`), `.npy`, or `.safetensors` (a tensor named `weights`, or the only one). The path is
local or any fsspec URL.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.errors import ConfigError
from omnitrace_core.storage.files import open_file

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "weights"


def read_head_weights(path: str) -> Tensor:
    """The weights of a file, [L, H] float32.

    Raises:
        ConfigError: the file cannot be read, is of no known kind, or its numbers are no weights.
    """
    import torch

    weights = _parse(path, _read(path))
    if weights.ndim != 2 or not weights.size:
        raise ConfigError(
            f"head weights in {path!r} have shape {list(weights.shape)}; give one row per "
            "layer and one column per head"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ConfigError(
            f"head weights in {path!r} must be finite, none below 0 and not all 0; they range from "
            f"{weights.min()} to {weights.max()}"
        )
    # Scaled before the cast: what counts is their proportion, and float32 reaches less far.
    return torch.from_numpy((weights / weights.max()).astype(np.float32))


def head_weights_identity(path: str) -> str:
    """Hash of the file's bytes, for a run's fingerprint. Raises: ConfigError."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: str) -> bytes:
    try:
        with open_file(path) as file:
            content: bytes = file.read()
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"head weights {path!r} cannot be read ({error}); give an existing .json, .npy or "
            ".safetensors file"
        ) from error
    return content


def _parse(path: str, content: bytes) -> NDArray[np.float64]:
    ending = PurePosixPath(path).suffix.lower()
    if ending not in _READERS:
        raise ConfigError(
            f"head weights {path!r} do not end in {', '.join(_READERS)}; give one of these"
        )
    try:
        loaded = np.asarray(_READERS[ending](content))
        if np.iscomplexobj(loaded):
            raise ValueError("complex numbers are no weights")
        return loaded.astype(np.float64)
    except Exception as error:
        raise ConfigError(
            f"head weights {path!r} cannot be read as {ending} ({type(error).__name__}: {error})"
        ) from error


def _from_json(content: bytes) -> object:
    told = json.loads(content)
    return told[_KEY] if isinstance(told, dict) else told


def _from_npy(content: bytes) -> object:
    return np.load(io.BytesIO(content), allow_pickle=False)


def _from_safetensors(content: bytes) -> object:
    # By torch: numpy knows no bfloat16.
    from safetensors.torch import load

    tensors = load(content)
    (only,) = (tensors[_KEY],) if _KEY in tensors else tensors.values()
    return only.double().numpy()


_READERS: dict[str, Callable[[bytes], object]] = {
    ".json": _from_json,
    ".npy": _from_npy,
    ".safetensors": _from_safetensors,
}
