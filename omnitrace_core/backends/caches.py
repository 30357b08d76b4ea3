"""Key caches: create them, and shorten them to the prompt after generation.

Symbols: B samples, K cache slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnitrace_core.errors import BackendError

if TYPE_CHECKING:
    from transformers import Cache


def growing_cache() -> Cache:
    """An empty cache that keeps every key of every layer, also in layers with sliding windows."""
    from transformers import DynamicCache

    # Made without a config, it does not know of sliding windows and drops no keys.
    return DynamicCache()


def preallocated_cache(n_layers: int, slots: int) -> Cache:
    """An empty cache whose memory is allocated at once: `slots` positions in every layer."""
    from transformers.cache_utils import Cache, StaticLayer

    return Cache(layers=[StaticLayer(max_cache_len=slots) for _ in range(n_layers)])


def can_keep_prompt(cache: Any, batch: int, length: int) -> bool:
    """Whether `keep_prompt` can shorten the cache of `batch` samples to its first `length` slots.

    It cannot if the cache dropped keys (sliding windows), stores something else (recurrent states,
    quantized keys), or has another number of rows (beams).
    """
    from transformers.cache_utils import DynamicLayer, StaticLayer

    layers = [layer for layer in cache.layers if layer.is_initialized]
    # Exact types: subclasses drop keys, or store more than keys and values.
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
    """Shorten the cache to its first `length` slots.

    Raises:
        BackendError: the cache has fewer slots, or a layer is empty.
    """
    from transformers.cache_utils import StaticLayer

    for layer in cache.layers:
        held = int(layer.get_seq_length())
        if not layer.is_initialized or held < length:
            raise BackendError(
                f"the cache has {held} slots, but the prompt needs {length}; this cache cannot "
                "be replayed from"
            )
        if type(layer) is StaticLayer:
            # The slots behind are masked until they are overwritten.
            layer.cumulative_length.fill_(length)
        elif held > length:
            layer.crop(length - held)  # a negative argument is the number of slots to drop
