"""Signs of life from a decoder to whoever waits for it.

Decoders call `still_working` wherever they have got on with a file: after a frame, a block of a
download, a stream. The process that decodes for another one tells its parent, whose deadline starts
anew; elsewhere it does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Of two signs within this time the second is not told.
_EVERY_S = 0.5


class _Signs:
    tell: Callable[[], object] | None = None
    told_at = 0.0


def tell_signs(tell: Callable[[], object]) -> None:
    """Have all signs of this process told by `tell` from now on, not more often than is useful."""
    _Signs.tell = tell


def still_working() -> None:
    """Say that decoding got on. Raises: what telling raises."""
    if _Signs.tell is None:
        return
    now = time.monotonic()
    if now - _Signs.told_at >= _EVERY_S:
        _Signs.told_at = now
        _Signs.tell()
