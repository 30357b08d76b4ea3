"""Which stores a run may read media from: `media.allow`, or what its input lies on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import pyarrow as pa

from omnitrace_core.access.stores import store_of, store_prefix
from omnitrace_core.errors import ConfigError, InputSchemaError
from pipeline.config import RunConfig

# In the metadata of an input shard's schema: a JSON list of the addresses in stores that `ingest`
# resolved relative addresses of media against.
MEDIA_ROOTS = "omnitrace.media_roots"


def with_allowed_stores(config: RunConfig, media_roots: Iterable[str]) -> RunConfig:
    """The same settings with a list in `media.allow`; a list that is set there stays as it is.

    media_roots: of all shards of the input.
    """
    if config.media.allow is not None:
        return config
    own = store_of(config.input.path)
    allow = tuple(sorted({*media_roots, *([own] if own else [])}))
    return config.model_copy(update={"media": config.media.model_copy(update={"allow": allow})})


def media_root_metadata(roots: Iterable[str]) -> dict[str, str]:
    """The metadata of a shard whose relative addresses start at these roots; empty if none."""
    named = sorted(set(roots))
    return {MEDIA_ROOTS: json.dumps(named)} if named else {}


def store_root(root: str) -> str | None:
    """A root of media as an entry of `media.allow`; None for local folders and web addresses.

    Raises:
        ConfigError: it is not a valid address of a store.
    """
    if "://" not in root or root.lower().startswith(("http://", "https://", "file://")):
        return None
    try:
        return store_prefix(root)
    except ValueError as error:
        raise ConfigError(f"the root of the media cannot be used: {error}") from None


def media_roots_of(schema: pa.Schema, where: str) -> tuple[str, ...]:
    """The roots that a shard's schema names.

    where: names the shard in messages.

    Raises:
        InputSchemaError: they are not a list of addresses in stores.
    """
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    written = metadata.get(MEDIA_ROOTS.encode())
    if written is None:
        return ()
    try:
        roots = json.loads(written)
        if not isinstance(roots, list) or not all(isinstance(root, str) for root in roots):
            raise ValueError("this is not a list of addresses")
        return tuple(map(store_prefix, roots))
    except ValueError as error:
        raise InputSchemaError(
            f"{where}: its metadata {MEDIA_ROOTS} cannot be used ({error}); write the shard again "
            "with omnitrace ingest, or set media.allow and remove the metadata"
        ) from None
