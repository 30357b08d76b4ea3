"""Read a weight per (layer, head) from a file, for the signal `heads:FILE`.

FILE is a local path or any fsspec URL, and its format is one of:

    .json         a list of one list per layer, or an object with that list under "weights"
    .npy          an array [L, H]
    .safetensors  a tensor named "weights", or the only tensor of the file

Symbols: L layers, H heads.
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
    """The weights of a file, [L, H] float32, scaled so that the largest is 1.

    Raises:
        ConfigError: the file cannot be read, has an unknown format, or contains invalid weights.
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
    # Only their proportions matter. Scaled before the cast, because float32 has a smaller range.
    return torch.from_numpy((weights / weights.max()).astype(np.float32))


def head_weights_identity(path: str) -> str:
    """SHA-256 of the file's bytes, for a run's fingerprint.

    Raises:
        ConfigError: the file cannot be read.
    """
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
            f"head weights {path!r} do not end in {', '.join(_READERS)}; give a file of one of "
            "these formats"
        )
    try:
        loaded = np.asarray(_READERS[ending](content))
        if np.iscomplexobj(loaded):
            raise ValueError("weights must not be complex numbers")
        return loaded.astype(np.float64)
    except Exception as error:
        raise ConfigError(
            f"head weights {path!r} cannot be read as {ending} ({type(error).__name__}: {error})"
        ) from error


def _from_json(content: bytes) -> object:
    loaded = json.loads(content)
    return loaded[_KEY] if isinstance(loaded, dict) else loaded


def _from_npy(content: bytes) -> object:
    return np.load(io.BytesIO(content), allow_pickle=False)


def _from_safetensors(content: bytes) -> object:
    # With torch, because numpy does not support bfloat16.
    from safetensors.torch import load

    tensors = load(content)
    (weights,) = (tensors[_KEY],) if _KEY in tensors else tensors.values()
    return weights.double().numpy()


_READERS: dict[str, Callable[[bytes], object]] = {
    ".json": _from_json,
    ".npy": _from_npy,
    ".safetensors": _from_safetensors,
}
