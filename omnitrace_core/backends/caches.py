"""Key caches: which ones can be brought back to the prompt, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnitrace_core.errors import BackendError

if TYPE_CHECKING:
    from transformers import Cache


def whole_cache() -> Cache:
    """An empty cache that keeps every key of every layer, those of sliding windows too."""
    from transformers import DynamicCache

    # Without a config it does not know of windows, and every layer grows.
    return DynamicCache()


def preallocated_cache(n_layers: int, slots: int) -> Cache:
    """An empty cache of full size from the start: `slots` positions in every layer."""
    from transformers.cache_utils import Cache, StaticLayer

    return Cache(layers=[StaticLayer(max_cache_len=slots) for _ in range(n_layers)])


def can_keep_prompt(cache: Any, batch: int, length: int) -> bool:
    """Whether `keep_prompt` can bring the cache of B samples back to its first `length` slots.

    Not so for caches that forgot keys (sliding windows), hold something else (recurrent states,
    quantized keys), or belong to other rows (beams).
    """
    from transformers.cache_utils import DynamicLayer, StaticLayer

    layers = [layer for layer in cache.layers if layer.is_initialized]
    # Their subclasses forget, or keep something beside keys and values.
    plain = all(type(layer) in (DynamicLayer, StaticLayer) for layer in layers)
    return (
        bool(layers)
        and plain
        and all(
            layer.keys.shape[0] == batch and int(layer.get_seq_length()) >= length
            for layer in layers
        )
    )


def keep_prompt(cache: Any, length: int) -> None:
    """Drop what the cache holds beyond its first `length` slots.

    Raises:
        BackendError: it holds fewer, or is of a kind that `can_keep_prompt` refuses.
    """
    from transformers.cache_utils import StaticLayer

    for layer in cache.layers:
        held = int(layer.get_seq_length())
        if not layer.is_initialized or held < length:
            raise BackendError(f"the cache holds {held} slots where the prompt needs {length}")
        if type(layer) is StaticLayer:
            # What stands behind is masked until it is overwritten.
            layer.cumulative_length.fill_(length)
        elif held > length:
            layer.crop(length - held)  # crop counts what to drop
