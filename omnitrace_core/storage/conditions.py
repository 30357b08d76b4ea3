"""Conditions of a write to S3, as arguments of PutObject."""

from __future__ import annotations

# Header arguments that must hold for the write to succeed; empty for an unconditional write.
Condition = dict[str, str]


def if_absent() -> Condition:
    """Write only if the object does not exist."""
    return {"IfNoneMatch": "*"}


def if_tag(tag: str) -> Condition:
    """Write only if the object's ETag is `tag`: over the version that was read."""
    return {"IfMatch": f'"{tag}"'}
