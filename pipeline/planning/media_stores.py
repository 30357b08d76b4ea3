"""Which stores a run may read media from: `media.allow`, or what its input lies on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import pyarrow as pa

from omnitrace_core.access.stores import STORES, is_object_store, store_of, store_prefix
from omnitrace_core.addresses import shown_address
from omnitrace_core.errors import ConfigError, InputSchemaError
from omnitrace_core.printable import printable
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


def check_input_store(config: RunConfig) -> None:
    """Check that the default of `media.allow` can be made of the input's address.

    Raises:
        ConfigError: it lies on a store, but does not begin with a name that can be an entry.
    """
    path = config.input.path
    scheme = path.partition("://")[0].lower()
    if config.media.allow is None and scheme in STORES and store_of(path) is None:
        raise ConfigError(
            f"input.path={shown_address(path)}: media.allow is not set, and its default cannot be "
            "made of this address, because its bucket, server or repository (namespace/name) is "
            "missing or has an unusual name; set media.allow to the stores that this run may read "
            "media from, or to []"
        )


def store_warnings(config: RunConfig, media_roots: Iterable[str]) -> list[str]:
    """What is said of entries in the default of `media.allow` that only the shards name."""
    if config.media.allow is not None:
        return []
    own = store_of(config.input.path)
    return [
        f"media may be read from {printable(root)}, which the input's shards name, and which is "
        "not the store of the input; if others wrote the shards, set media.allow"
        for root in sorted(set(media_roots))
        if own is None or not root.startswith(own)
    ]


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
        InputSchemaError: they are not a list of addresses in object stores.
    """
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    written = metadata.get(MEDIA_ROOTS.encode())
    if written is None:
        return ()
    try:
        roots = json.loads(written)
        if not isinstance(roots, list) or not all(isinstance(root, str) for root in roots):
            raise ValueError("this is not a list of addresses")
        return tuple(map(_root_of_shard, roots))
    except ValueError as error:
        raise InputSchemaError(
            f"{where}: its metadata {MEDIA_ROOTS} cannot be used ({error}); set media.allow to the "
            "stores that this run may read media from (or to []), or write the shard again with "
            "omnitrace ingest"
        ) from None


def _root_of_shard(root: str) -> str:
    """A shard's root in normal form. Raises: ValueError: only a config may name such an entry."""
    entry = store_prefix(root)
    if not is_object_store(entry):
        raise ValueError(
            f"{shown_address(entry)}: a shard may name folders of object stores (a bucket, a "
            "container, a repository of the hub), and no servers, caches and archives"
        )
    return entry
