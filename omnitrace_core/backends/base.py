"""What a model family must offer to be traced.

A backend turns ready samples into left-padded model inputs, knows where every prompt position lies
in the sample's own coordinates, and generates. Everything after that (replay, signals, folding) is
common to all families and lives in `replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import DecodeOptions
from omnitrace_core.positions import PromptMap
from omnitrace_core.records import ReadySample
from omnitrace_core.samples.inputs import SampleInput

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sample as model inputs, not yet padded or batched.

    input_ids: [n_prompt] long. features: the family's own media tensors, to be joined along their
    first dimension; sounds: [n_mels, n_frames] each, to be padded to the longest.
    unit_index: [n_prompt], the unit of each position, -1 for none.
    sound_in_video: whether its videos carry their sound inside (None: no video).
    """

    ready: ReadySample
    input_ids: Tensor
    features: Mapping[str, Tensor]
    sounds: tuple[Tensor, ...]
    prompt: PromptMap
    unit_index: NDArray[np.int64]
    sound_in_video: bool | None
    notes: tuple[str, ...] = ()

    @property
    def n_prompt(self) -> int:
        """Prompt positions, padding apart."""
        return int(self.input_ids.shape[0])


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch ready for the model.

    inputs: keyword arguments of the model's forward, left-padded, on its device.
    unit_index: [B, P] long on the CPU, the unit of each prompt position, -1 for none.
    """

    encoded: tuple[Encoded, ...]
    inputs: Mapping[str, object]
    unit_index: Tensor

    @property
    def attention_mask(self) -> Tensor:
        """[B, P] long, 1 for real positions."""
        mask: Tensor = self.inputs["attention_mask"]  # type: ignore[assignment]
        return mask

    @property
    def input_ids(self) -> Tensor:
        """[B, P] long."""
        ids: Tensor = self.inputs["input_ids"]  # type: ignore[assignment]
        return ids


@dataclass(frozen=True, slots=True)
class PrefilledPrompt:
    """What the replay starts from.

    cache: keys and values of at least the first P - 1 prompt positions, all layers.
    attention_mask: [B, P] long, 1 for real positions. last_embedding: [B, 1, D], the embedding of
    the last prompt token, as the decoder takes it.
    position_delta: [B, 1] long, what is added to a text position to get its rotary position.
    """

    cache: Cache
    attention_mask: Tensor
    last_embedding: Tensor
    position_delta: Tensor


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """How the next token is chosen, as `generate` would with the same settings.

    processors: (token ids so far [B, K] long, logits [B, V]) -> scores [B, V]. sample: whether the
    token is drawn from them; otherwise the largest wins.
    """

    processors: Callable[[Tensor, Tensor], Tensor]
    sample: bool


@dataclass(frozen=True, slots=True)
class Generated:
    """New token ids [B, n] (padded after each sample's end) and the state of the prompt."""

    token_ids: Tensor
    prompt: PrefilledPrompt


class Backend(Protocol):
    """One model family. Add a model: a file with this, a line in the table, an oracle test."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rules: MediaRules
    end_ids: frozenset[int]

    @property
    def decoder(self) -> nn.Module:
        """The text decoder: takes input_ids, attention_mask, position_ids, past_key_values."""
        ...

    @property
    def output_head(self) -> nn.Module:
        """Maps the decoder's last hidden state to logits."""
        ...

    def encode(self, ready: ReadySample) -> Encoded:
        """Tokenize one sample and compute its media tensors. Raises: SampleError."""
        ...

    def collate(self, encoded: Sequence[Encoded]) -> Prepared:
        """Left-pad and join encoded samples that agree on `sound_in_video`."""
        ...

    def prepare(self, samples: SampleInput | Sequence[SampleInput]) -> Prepared:
        """Read, encode and collate what `OmniTracer.trace` takes. Raises: SampleError."""
        ...

    def generate(self, prepared: Prepared, decode: DecodeOptions) -> Generated:
        """Generate responses, keeping the cache."""
        ...

    def decoding_rules(self, prepared: Prepared, decode: DecodeOptions) -> DecodingRules:
        """What `generate` does with the logits of each step, for a loop of our own."""
        ...

    def prefill(self, prepared: Prepared, cache: Cache | None = None) -> PrefilledPrompt:
        """Run the prompt alone, for a response that is already known.

        cache: an empty one to fill; by default one that keeps every key of every layer.
        """
        ...
