"""Group encoded samples into batches of similar length under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnitrace_core.tracing.responses import ResponseTokens

if TYPE_CHECKING:
    from omnitrace_core.backends.base import EncodedSample


@dataclass(frozen=True, slots=True)
class TraceInput:
    """One sample, encoded and ready to be traced.

    index: its place in the caller's list. response: its known response, None if the model has to
    generate one. n_tokens: length of prompt and response; for an unknown response its maximum.
    """

    index: int
    encoded: EncodedSample
    response: ResponseTokens | None
    n_tokens: int


def batches(inputs: Sequence[TraceInput], budget: int) -> Iterator[list[TraceInput]]:
    """Batches that each stay within `budget` tokens, the longest samples first.

    The samples of a batch either all have a known response or all have none, and they agree on
    whether the sound of videos is interleaved with the frames. A batch costs the tokens of its
    longest sample times the number of its samples. A sample above the budget is a batch by itself.
    """
    groups: dict[tuple[bool, bool], list[TraceInput]] = {}
    for item in inputs:
        key = (item.response is not None, item.encoded.sound_in_video is True)
        groups.setdefault(key, []).append(item)
    for key in sorted(groups):
        batch: list[TraceInput] = []
        # By prompt length first: prompts are padded to the longest of the batch.
        for item in sorted(groups[key], key=lambda item: (-item.encoded.n_prompt, -item.n_tokens)):
            longest = max(other.n_tokens for other in [*batch, item])
            if batch and longest * (len(batch) + 1) > budget:
                yield batch
                batch = []
            batch.append(item)
        yield batch
