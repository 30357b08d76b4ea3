"""The `Backend` protocol: what a model family must implement to be traced.

A backend turns ready samples into left-padded model inputs, records which part of the sample each
prompt position comes from, and generates responses. What follows (replay, signals, folding) is the
same for all families; see the package `tracing`.

Symbols: B samples, P padded prompt positions, K cache slots, D model width, V vocabulary size.
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
from omnitrace_core.samples.sample_input import SampleInput

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample as model inputs, not yet padded or batched.

    input_ids: [n_prompt] long. features: media tensors of this family, concatenated along their
    first dimension in a batch. sounds: [n_mels, n_frames] each, padded to the longest in a batch.
    prompt: where each position lies in the sample. unit_index: [n_prompt], the unit of each
    position, -1 for none. sound_in_video: whether the sound of videos is interleaved with their
    frames (None: the sample has no video).
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
        """Number of prompt positions, without padding."""
        return int(self.input_ids.shape[0])


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A batch of model inputs.

    inputs: keyword arguments of the model's forward, left-padded, on the model's device.
    unit_index: [B, P] long on the CPU, the unit of each prompt position, -1 for none.
    """

    encoded: tuple[EncodedSample, ...]
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
    """The state of the model after the prompt, from which the replay starts.

    cache: keys and values of at least the first P - 1 prompt positions, all layers.
    attention_mask: [B, P] long, 1 for real positions. last_embedding: [B, 1, D], the decoder's
    input embedding of the last prompt token.
    position_delta: [B, 1] long, is added to a text position to get its rotary position.
    """

    cache: Cache
    attention_mask: Tensor
    last_embedding: Tensor
    position_delta: Tensor


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """How `generate` chooses the next token, for a caller with a separate decoding loop.

    processors: (token ids so far [B, K] long, logits [B, V]) -> scores [B, V]. sample: whether the
    token is drawn from the softmax of the scores; otherwise it is the largest.
    """

    processors: Callable[[Tensor, Tensor], Tensor]
    sample: bool


@dataclass(frozen=True, slots=True)
class Generated:
    """New token ids [B, n] (padded after each sample's end), and the state after the prompt."""

    token_ids: Tensor
    prompt: PrefilledPrompt


class Backend(Protocol):
    """One model family.

    To add one: write a module with `load` and `media_rules`, add it to the tables in
    `backends/__init__.py`, and write an oracle test like that of the replay.

    rules: how media are resized and sampled for the model. end_ids: tokens that end a response.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rules: MediaRules
    end_ids: frozenset[int]

    @property
    def decoder(self) -> nn.Module:
        """The text decoder: takes inputs_embeds, attention_mask, position_ids, past_key_values."""
        ...

    @property
    def output_head(self) -> nn.Module:
        """Maps the decoder's last hidden state to logits."""
        ...

    def encode(self, ready: ReadySample) -> EncodedSample:
        """Tokenize one sample and compute its media tensors, on the CPU. Raises: SampleError."""
        ...

    def collate(self, encoded: Sequence[EncodedSample]) -> PreparedBatch:
        """Left-pad encoded samples to one batch; they must agree on `sound_in_video`."""
        ...

    def prepare(self, samples: SampleInput | Sequence[SampleInput]) -> PreparedBatch:
        """Read, encode and collate what `OmniTracer.trace` takes. Raises: SampleError."""
        ...

    def generate(self, prepared: PreparedBatch, decode: DecodeOptions) -> Generated:
        """Generate responses, and keep the key cache."""
        ...

    def decoding_rules(self, prepared: PreparedBatch, decode: DecodeOptions) -> DecodingRules:
        """How `generate` would choose the next token with these options."""
        ...

    def prefill(self, prepared: PreparedBatch, cache: Cache | None = None) -> PrefilledPrompt:
        """Run only the prompt, for a response that is already known.

        cache: an empty cache to fill; by default one that keeps every key of every layer.
        """
        ...
