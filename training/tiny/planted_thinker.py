"""The thinker that is trained in the planted world: its sizes, its tokenizer, its first weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from training.tiny.build import DEFAULT_SYSTEM, HEAD_DIM, TOKEN_PIXELS, Sizes, make_thinker
from training.tiny.circuit import Forms, plant
from training.tiny.tokenizer import build_word_tokenizer
from training.world import lexicon
from training.world.samples import Text
from training.world.tasks import TASK_NAMES, make_sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

WIDTH = 256
_TOWER = 96
SIZES = Sizes(
    text={
        "hidden_size": WIDTH,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": WIDTH // HEAD_DIM,
        "num_key_value_heads": 4,
    },
    vision={
        "depth": 2,
        "hidden_size": _TOWER,
        "intermediate_size": 2 * _TOWER,
        "num_heads": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "fullatt_block_indexes": [1],
    },
    # A window of 50 frames of two hops is one second: seconds do not mix in the encoder.
    audio={
        "num_mel_bins": 128,
        "encoder_layers": 1,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 2 * _TOWER,
        "d_model": _TOWER,
        "n_window": 50,
    },
    init_std=0.06,
    rope_theta=10_000.0,
    tied=True,
    image_max_pixels=16 * TOKEN_PIXELS,
    video_max_pixels=4 * TOKEN_PIXELS,
)
_KINDS: tuple[Sequence[str], ...] = (
    *(lexicon.NAMES, lexicon.OBJECTS, lexicon.PLACES, tuple(lexicon.COLOURS), lexicon.SHAPES),
    *(lexicon.SOUNDS, lexicon.LETTERS),
)


def make_planted_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each of the world's words, bytes for any other text."""
    return build_word_tokenizer(_texts())


def make_planted_thinker(tokenizer: PreTrainedTokenizerFast, seed: int, circuit: bool) -> Any:
    """The untrained model. circuit: with the previous-token circuit planted."""
    import torch

    model = make_thinker(tokenizer, SIZES, seed)
    if circuit:
        plant(model, torch.Generator().manual_seed(seed), kinds(tokenizer))
    return model


def kinds(tokenizer: PreTrainedTokenizerBase) -> list[list[Forms]]:
    """Ids of the words that can be looked up, by kind."""

    def token_id(text: str) -> int:
        (token,) = tokenizer(text, add_special_tokens=False)["input_ids"]
        return int(token)

    return [[(token_id(word), token_id(f" {word}")) for word in words] for words in _KINDS]


def _texts() -> Iterator[str]:
    """Texts with every word of the world: its word lists, and the sentences of many samples."""
    yield f"system\nuser\nassistant\n{DEFAULT_SYSTEM}"
    for word in (word for group in (*_KINDS, lexicon.NUMBERS) for word in group):
        yield word
        yield f" {word}"
    for task in TASK_NAMES:
        for level in range(2, 7):
            for number in range(10):
                sample = make_sample(task, level, f"words-{number}")
                yield f"{sample.prompt}\n{sample.response}"
                yield from (part.text for part in sample.parts if isinstance(part, Text))
