"""The model and the prompts of the tracing benchmark: real architecture, random weights, one seed.

Prompts are text with random ids. The class requires vision and audio towers, which are as small as
possible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

if TYPE_CHECKING:
    from torch import Tensor

# Source units of every prompt, each a run of positions; the first and last ones are markup.
N_UNITS = 40
_MARKUP = 8


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of the text decoder. mrope: rotary pairs for time, height and width, half a head."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    ffn: int
    vocabulary: int
    mrope: tuple[int, int, int]


SIZES = {
    "tiny": Size(64, 2, 4, 2, 128, 512, (2, 3, 3)),
    "moderate": Size(512, 8, 8, 2, 2048, 4096, (8, 12, 12)),
    "7b": Size(3584, 28, 28, 4, 18_944, 152_064, (16, 24, 24)),
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Left-padded prompts. inputs: input_ids and attention_mask, [B, P] long, on the device.

    unit_index: [B, P] long on the CPU, the unit of each position, -1 for none.
    """

    inputs: dict[str, Tensor]
    unit_index: Tensor

    @property
    def length(self) -> int:
        """P, padded positions."""
        return int(self.unit_index.shape[1])


def build_model(size: Size, attention: str, device: str, dtype: str, seed: int) -> Any:
    """A frozen thinker that decodes greedily and has no end token.

    attention: sdpa or eager. device: where the weights are created. dtype: a name in torch.
    """
    import torch

    enable_transformers_vision()
    from transformers import GenerationConfig, Qwen2_5OmniThinkerForConditionalGeneration

    torch.manual_seed(seed)
    with torch.device(device):
        model: Any = Qwen2_5OmniThinkerForConditionalGeneration._from_config(
            _config(size), dtype=getattr(torch, dtype), attn_implementation=attention
        )
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=None)
    return model.eval().requires_grad_(False)


def make_prompt(vocabulary: int, batch: int, length: int, device: str, seed: int) -> Prompt:
    """Random ids; the longest of the batch has `length` tokens, the shortest three quarters."""
    import torch

    numbers = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(vocabulary, (batch, length), generator=numbers)
    mask = torch.ones_like(input_ids)
    unit_index = torch.full_like(input_ids, -1)
    for row in range(batch):
        padding = row * (length // 4) // max(1, batch - 1)
        n_prompt = length - padding
        mask[row, :padding] = 0
        units = torch.arange(n_prompt) * N_UNITS // n_prompt
        units[:_MARKUP] = units[-_MARKUP:] = -1
        unit_index[row, padding:] = units
    input_ids = input_ids.masked_fill(mask == 0, 0)
    inputs = {"input_ids": input_ids.to(device), "attention_mask": mask.to(device)}
    return Prompt(inputs, unit_index)


def _config(size: Size) -> Any:
    from transformers import Qwen2_5OmniThinkerConfig

    # In proportion to the width like the real model's 0.02, so that attention is not uniform.
    std = 1.2 / math.sqrt(size.hidden)
    text = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.ffn,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_heads,
        "max_position_embeddings": 32_768,
        "initializer_range": std,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": list(size.mrope),
        },
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "fullatt_block_indexes": [0],
        "out_hidden_size": size.hidden,
    }
    audio = {
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "d_model": 32,
        "output_dim": size.hidden,
    }
    # Placeholders are outside the vocabulary, so that no generated token is one of them.
    image, sound, video, sound_start, sound_end_s, vision_start = range(
        size.vocabulary, size.vocabulary + 6
    )
    config: Any = Qwen2_5OmniThinkerConfig(
        text_config=text,
        vision_config=vision,
        audio_config=audio,
        initializer_range=std,
        image_token_index=image,
        audio_token_index=sound,
        video_token_index=video,
        audio_start_token_id=sound_start,
        audio_end_token_id=sound_end_s,
    )
    # Not a field of the config class, but the model's rotary index reads it.
    config.vision_start_token_id = vision_start
    return config
