"""Check half-open ranges of characters or seconds."""

from __future__ import annotations

import math

from omnitrace_core.errors import InvalidSample


def check_range(
    start: float | None,
    end: float | None,
    where: str,
    text: str | None = None,
    owner: str = "",
) -> None:
    """Check a half-open range; both ends may be None.

    text: what the range must lie within, if anything; owner: whose text it is, for the message.

    Raises:
        InvalidSample: only one end is given, the range is empty or reversed, or it lies outside.
    """
    if start is None and end is None:
        return
    if start is None or end is None or not 0 <= start < end < math.inf:
        raise InvalidSample(
            f"{where} [{start}, {end}) is not a valid range; the start must be 0 or later, the end "
            "after it"
        )
    if text is not None and end > len(text):
        raise InvalidSample(
            f"{where} [{start}, {end}) go beyond the {owner}'s text of {len(text)} characters"
        )
