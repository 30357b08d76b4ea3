"""What must hold for a write to S3 to be done, as PutObject says it."""

from __future__ import annotations

# What must hold for a write to S3 to be done, as PutObject says it; empty: nothing.
Condition = dict[str, str]


def if_absent() -> Condition:
    """Write only where nothing is."""
    return {"IfNoneMatch": "*"}


def if_tag(tag: str) -> Condition:
    """Write only over the version of this tag."""
    return {"IfMatch": f'"{tag}"'}
