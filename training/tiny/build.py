"""Write a tiny Qwen2.5-Omni thinker to a folder: `python -m training.tiny.build DEST [--seed N]`.

The architecture, the processor and the file layout are those of Qwen/Qwen2.5-Omni-7B's thinker, so
code that loads that model also loads this one; only the sizes are small. The weights are random and
follow from a seed; nothing is trained. Responses are noise: attribution on them shows that the code
runs, not that the sources are meaningful.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision
from training.tiny.tokenizer import (
    END_OF_TEXT,
    IM_END,
    MAX_LENGTH,
    MODALITY_TOKENS,
    SPECIAL_TOKENS,
    build_tokenizer,
)

if TYPE_CHECKING:
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        Qwen2_5OmniProcessor,
        Qwen2_5OmniThinkerConfig,
    )

HIDDEN = 128
HEAD_DIM = 32
# The real model splits head_dim / 2 = 64 rotary pairs over time, height, width as 16 + 24 + 24.
MROPE_SECTION = (4, 6, 6)
# Several times the library's 0.02, so that attention is not uniform and greedy decoding seldom
# settles on one token. Not more: weights of 0.15 amplify rounding until float32 attention rows are
# 1e-5 of their maximum away from float64, which is the tolerance that replay is tested with.
INIT_STD = 0.1

PATCH = 14
MERGE = 2
TEMPORAL_PATCH = 2
TOKEN_PIXELS = (PATCH * MERGE) ** 2
# Smaller than the real limits, so that 1280x720 media cost a CPU little, yet large enough that a
# pair of frames has as many tokens as a sentence: random attention spreads over tokens, and units
# of a few would never be named. At most 36 tokens per image, 16 per pair of video frames.
IMAGE_MIN_PIXELS = 4 * TOKEN_PIXELS
IMAGE_MAX_PIXELS = 36 * TOKEN_PIXELS
VIDEO_MIN_PIXELS = 4 * TOKEN_PIXELS
VIDEO_MAX_PIXELS = 16 * TOKEN_PIXELS


@dataclass(frozen=True, slots=True)
class Sizes:
    """What differs between small thinkers: values of the three configs, and pixel limits.

    vision, audio: without the output width, which is the text's `hidden_size`.
    """

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    audio: Mapping[str, Any]
    init_std: float
    rope_theta: float
    tied: bool
    image_max_pixels: int
    video_max_pixels: int


VISION_CONFIG: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 4,
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": TEMPORAL_PATCH,
    "fullatt_block_indexes": [1],
    "initializer_range": INIT_STD,
}
AUDIO_CONFIG: dict[str, Any] = {
    "num_mel_bins": 128,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "d_model": 64,
    "n_window": 100,
    "initializer_range": INIT_STD,
}
RANDOM = Sizes(
    text={
        "hidden_size": HIDDEN,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": HIDDEN // HEAD_DIM,
        "num_key_value_heads": 2,
    },
    vision=VISION_CONFIG,
    audio=AUDIO_CONFIG,
    init_std=INIT_STD,
    rope_theta=1_000_000.0,
    tied=False,
    image_max_pixels=IMAGE_MAX_PIXELS,
    video_max_pixels=VIDEO_MAX_PIXELS,
)

DEFAULT_SYSTEM = "You are a helpful assistant."
CHAT_TEMPLATE = """\
{%- if messages and messages[0].role != 'system' -%}
<|im_start|>system
DEFAULT_SYSTEM<|im_end|>
{{ '' }}
{%- endif -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ '' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}
{{ part.text }}
{%- elif part.type == 'image' -%}
<|vision_bos|><|IMAGE|><|vision_eos|>
{%- elif part.type == 'audio' -%}
<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif part.type == 'video' -%}
<|vision_bos|><|VIDEO|><|vision_eos|>
{%- else -%}
{{ raise_exception('unknown part type: ' ~ part.type) }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{{ '' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{{ '' }}
{%- endif -%}
""".replace("DEFAULT_SYSTEM", DEFAULT_SYSTEM)


def build_tiny(dest: Path, seed: int = 0) -> Path:
    """Write config, weights (float32 safetensors), tokenizer and processor; returns `dest`.

    The same seed gives the same bytes. Torch's global random state is left as it was.
    """
    tokenizer = build_tokenizer()
    save_thinker(dest, make_thinker(tokenizer, RANDOM, seed), tokenizer, RANDOM)
    return dest


def make_thinker(tokenizer: PreTrainedTokenizerFast, sizes: Sizes, seed: int) -> Any:
    """A thinker of random weights. Torch's global random state is left as it was."""
    import torch

    enable_transformers_vision()
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5OmniThinkerForConditionalGeneration(_model_config(tokenizer, sizes))
    model.generation_config = _generation_config(tokenizer)
    return model


def save_thinker(dest: Path, model: Any, tokenizer: PreTrainedTokenizerFast, sizes: Sizes) -> None:
    """Write config, weights, generation config, tokenizer and processor."""
    dest.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(dest)
    _processor(tokenizer, sizes).save_pretrained(dest)


def _model_config(tokenizer: PreTrainedTokenizerFast, sizes: Sizes) -> Qwen2_5OmniThinkerConfig:
    from transformers import Qwen2_5OmniThinkerConfig

    vocabulary = tokenizer.get_vocab()
    ids = {name: vocabulary[token] for name, token in MODALITY_TOKENS.items()}
    width = sizes.text["hidden_size"]
    config = Qwen2_5OmniThinkerConfig(
        text_config={
            **sizes.text,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": MAX_LENGTH,
            "initializer_range": sizes.init_std,
            "tie_word_embeddings": sizes.tied,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": sizes.rope_theta,
                "mrope_section": list(MROPE_SECTION),
            },
        },
        vision_config={**sizes.vision, "out_hidden_size": width},
        audio_config={**sizes.audio, "output_dim": width},
        image_token_index=ids["image_token"],
        audio_token_index=ids["audio_token"],
        video_token_index=ids["video_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        user_token_id=vocabulary["user"],
        initializer_range=sizes.init_std,
        tie_word_embeddings=sizes.tied,
    )
    # Not fields of the thinker's config class, but its M-RoPE index reads the first.
    config.vision_start_token_id = ids["vision_bos_token"]
    config.vision_end_token_id = ids["vision_eos_token"]
    return config


def _generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Greedy; ends on <|im_end|> or <|endoftext|>.

    The other special tokens are suppressed: random weights would name a media placeholder now and
    then, and a response with one cannot be fed back to the model without the media it stands for.
    """
    from transformers import GenerationConfig

    vocabulary = tokenizer.get_vocab()
    special = [vocabulary[token] for token in SPECIAL_TOKENS]
    ends = [vocabulary[IM_END], vocabulary[END_OF_TEXT]]
    return GenerationConfig(
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[token for token in special if token not in ends],
    )


def _processor(tokenizer: PreTrainedTokenizerFast, sizes: Sizes) -> Qwen2_5OmniProcessor:
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        WhisperFeatureExtractor,
    )

    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": IMAGE_MIN_PIXELS, "longest_edge": sizes.image_max_pixels},
            patch_size=PATCH,
            merge_size=MERGE,
            temporal_patch_size=TEMPORAL_PATCH,
        ),
        video_processor=Qwen2VLVideoProcessor(
            size={"shortest_edge": VIDEO_MIN_PIXELS, "longest_edge": sizes.video_max_pixels},
            cap_pixels_per_frame=False,
            patch_size=PATCH,
            merge_size=MERGE,
            temporal_patch_size=TEMPORAL_PATCH,
        ),
        feature_extractor=WhisperFeatureExtractor(
            feature_size=128, sampling_rate=16_000, hop_length=160, chunk_length=300, n_fft=400
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def main(argv: list[str] | None = None) -> None:
    from transformers.utils import logging as transformers_logging

    parser = argparse.ArgumentParser(prog="python -m training.tiny.build", description=__doc__)
    parser.add_argument("dest", type=Path, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights")
    args = parser.parse_args(argv)
    transformers_logging.disable_progress_bar()
    dest = build_tiny(args.dest, args.seed)
    n_bytes = sum(path.stat().st_size for path in dest.iterdir())
    print(
        f"tiny Qwen2.5-Omni thinker, random weights (seed {args.seed}): {dest}, {n_bytes:,} bytes"
    )


if __name__ == "__main__":
    main()
