"""Loose values of input records: what they are, and how they read as text."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import numbers
import reprlib
import uuid

import numpy as np

from omnitrace_core.addresses import shown_text


def as_list(value: object) -> list[object] | None:
    """A list's, tuple's or numpy array's items; None for everything else."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else None


def as_bytes(value: object) -> bytes | None:
    """The bytes of a bytes-like value; None for everything else."""
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


def is_missing(value: object) -> bool:
    """Whether the value is None, or NaN, which tables use for a missing value."""
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def scalar_text(value: object) -> str | None:
    """A scalar as text; None for missing values (None, NaN) and for everything nested or binary."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, numbers.Real):
        return None if is_missing(value) else str(value)
    if isinstance(value, datetime.date | datetime.time | decimal.Decimal | uuid.UUID):
        return str(value)
    return None


def any_text(value: object) -> str | None:
    """A scalar as text, a nested value as JSON; None if missing, or if JSON cannot represent it."""
    if is_missing(value) or (text := scalar_text(value)) is not None:
        return None if is_missing(value) else text
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # unknown types, cycles, deep nesting
        return None


class _ShortRepr(reprlib.Repr):
    """Bounded in length and depth: the built-in repr would first format megabytes of media."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlevel = 3

    def repr_str(self, value: str, level: int) -> str:
        return super().repr_str(shown_text(value), level)

    def repr_bytes(self, value: bytes | memoryview, level: int) -> str:
        return f"<{len(value):,} bytes>"

    repr_memoryview = repr_bytes


_SHORT = _ShortRepr()


def shorten(value: object) -> str:
    """Any value on one short line, for messages."""
    return " ".join(_SHORT.repr(value).split())
