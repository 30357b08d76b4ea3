"""Which samples share a batch: like samples of like length, under a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnitrace_core.tracing.responses import Response

if TYPE_CHECKING:
    from omnitrace_core.backends.base import Encoded


@dataclass(frozen=True, slots=True)
class Item:
    """An encoded sample with its place in the caller's list.

    response: None if the model is to answer. n_tokens: prompt and response, the response at its
    longest where it is not known.
    """

    index: int
    encoded: Encoded
    response: Response | None
    n_tokens: int


def batches(items: Sequence[Item], budget: int) -> Iterator[list[Item]]:
    """Batches of items that agree on whether they are answered and where their videos' sound goes.

    Longest first. A batch costs its longest item's tokens times its items, at most `budget`; an
    item above the budget goes alone.
    """
    groups: dict[tuple[bool, bool], list[Item]] = {}
    for item in items:
        key = (item.response is not None, item.encoded.sound_in_video is True)
        groups.setdefault(key, []).append(item)
    for key in sorted(groups):
        batch: list[Item] = []
        # Prompts first: it is them that are padded to one length.
        for item in sorted(groups[key], key=lambda item: (-item.encoded.n_prompt, -item.n_tokens)):
            longest = max(other.n_tokens for other in [*batch, item])
            if batch and longest * (len(batch) + 1) > budget:
                yield batch
                batch = []
            batch.append(item)
        yield batch
