"""The tiny thinker loads like the real one, is reproducible, and answers every modality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision
from training.tiny.build import (
    DEFAULT_SYSTEM,
    IMAGE_MAX_PIXELS,
    MERGE,
    TOKEN_PIXELS,
    VIDEO_MAX_PIXELS,
    build_tiny,
)
from training.tiny.tokenizer import IM_END, MODALITY_TOKENS, SPECIAL_TOKENS

if TYPE_CHECKING:
    from transformers import Qwen2_5OmniProcessor

GENERATION_PROMPT = "<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def tiny(tiny_model: str) -> Path:
    return Path(tiny_model)


@pytest.fixture(scope="module")
def processor(tiny: Path) -> Qwen2_5OmniProcessor:
    enable_transformers_vision()
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(tiny, local_files_only=True)


def _user(*parts: str | dict[str, str]) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]


def test_same_seed_same_bytes_other_seed_other_weights(tiny: Path, tmp_path: Path) -> None:
    again = build_tiny(tmp_path / "again", seed=0)
    other = build_tiny(tmp_path / "other", seed=1)
    names = sorted(path.name for path in tiny.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        assert (tiny / name).read_bytes() == (again / name).read_bytes(), name
    weights = "model.safetensors"
    assert (tiny / weights).read_bytes() != (other / weights).read_bytes()


def test_build_leaves_the_global_random_state(tmp_path: Path) -> None:
    import torch

    before = torch.random.get_rng_state()
    build_tiny(tmp_path, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_load_whole_and_small(tiny: Path) -> None:
    import torch
    from transformers import AutoConfig, Qwen2_5OmniThinkerForConditionalGeneration

    thinker: Any = Qwen2_5OmniThinkerForConditionalGeneration
    model, report = thinker.from_pretrained(tiny, local_files_only=True, output_loading_info=True)
    assert not any(report.values()), report
    assert model.dtype == torch.float32
    assert (tiny / "model.safetensors").stat().st_size < 8_000_000
    config = AutoConfig.from_pretrained(tiny, local_files_only=True)
    assert config.model_type == "qwen2_5_omni_thinker"
    assert config.text_config.rope_parameters["mrope_section"] == [4, 6, 6]
    assert len(model.generation_config.eos_token_id) == 2


def test_special_tokens_agree_with_the_config(tiny: Path, processor: Qwen2_5OmniProcessor) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tiny, local_files_only=True)
    tokenizer = processor.tokenizer
    for token in SPECIAL_TOKENS:
        assert len(tokenizer(token)["input_ids"]) == 1, token
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MODALITY_TOKENS.items()}
    assert config.image_token_index == ids["image_token"] == processor.image_token_id
    assert config.audio_token_index == ids["audio_token"] == processor.audio_token_id
    assert config.video_token_index == ids["video_token"] == processor.video_token_id
    assert config.audio_start_token_id == ids["audio_bos_token"]
    assert config.vision_start_token_id == ids["vision_bos_token"]
    assert config.text_config.vocab_size == len(tokenizer)
    assert tokenizer.padding_side == "left"


@pytest.mark.parametrize(
    "text",
    [
        "The lamp is in the kitchen.",
        "  two  spaces\n\n- a list\n",
        "naïve 日本語 🙂 x²=4",
        "\t\x07",
    ],
)
def test_tokenizer_is_lossless(processor: Qwen2_5OmniProcessor, text: str) -> None:
    ids = processor.tokenizer(text)["input_ids"]
    assert processor.tokenizer.decode(ids) == text


def test_common_words_are_single_tokens(processor: Qwen2_5OmniProcessor) -> None:
    tokens = processor.tokenizer.tokenize("user\nassistant\nthe lamp is red")
    assert len(tokens) <= 9, tokens


def test_chat_template_adds_a_system_message_only_if_there_is_none(
    processor: Qwen2_5OmniProcessor,
) -> None:
    parts = _user({"type": "image"}, {"type": "audio"}, {"type": "video"}, "What is  this?\n")
    body = (
        "<|im_start|>user\n<|vision_bos|><|IMAGE|><|vision_eos|><|audio_bos|><|AUDIO|><|audio_eos|>"
        "<|vision_bos|><|VIDEO|><|vision_eos|>What is  this?\n<|im_end|>\n"
    )
    alone = processor.apply_chat_template(parts, tokenize=False, add_generation_prompt=True)
    assert alone == (f"<|im_start|>system\n{DEFAULT_SYSTEM}{IM_END}\n{body}{GENERATION_PROMPT}")
    with_system = [{"role": "system", "content": "Be brief."}, *parts]
    rendered = processor.apply_chat_template(with_system, tokenize=False)
    assert rendered == f"<|im_start|>system\nBe brief.{IM_END}\n{body}"


def test_chat_template_refuses_an_unknown_part(processor: Qwen2_5OmniProcessor) -> None:
    with pytest.raises(Exception, match="unknown part type: smell"):
        processor.apply_chat_template(_user({"type": "smell"}), tokenize=False)


def test_large_media_cost_few_tokens(processor: Qwen2_5OmniProcessor) -> None:
    image = np.zeros((720, 1280, 3), np.uint8)
    inputs = processor(text=[processor.image_token], images=[image], return_tensors="pt")
    assert 4 <= inputs["input_ids"].shape[1] <= IMAGE_MAX_PIXELS // TOKEN_PIXELS
    # The processor's own default would hide the saved limits of its video part, so ask that part.
    grid = processor.video_processor([image[None].repeat(2, 0)])["video_grid_thw"][0]
    assert 4 <= int(grid.prod()) // MERGE**2 <= VIDEO_MAX_PIXELS // TOKEN_PIXELS


def test_generates_for_every_modality_in_one_batch(
    tiny: Path, processor: Qwen2_5OmniProcessor
) -> None:
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    thinker: Any = Qwen2_5OmniThinkerForConditionalGeneration
    model = thinker.from_pretrained(tiny, local_files_only=True)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (56, 112, 3), dtype=np.uint8)
    frames = rng.integers(0, 255, (4, 56, 56, 3), dtype=np.uint8)
    tone = (0.3 * np.sin(np.arange(24_000) / 16_000 * 2 * np.pi * 440)).astype(np.float32)
    media = {"type": "image"}, {"type": "audio"}, {"type": "video"}
    chats = [_user("Where is the lamp?"), *[_user(part, "What is it?") for part in media]]
    chats.append(_user(*media, "What is all this?"))
    inputs = processor(
        text=[
            processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            for chat in chats
        ],
        images=[image, image],
        audio=[tone, tone],
        videos=[frames, frames],
        videos_kwargs={"do_resize": False, "fps": 2.0},
        padding=True,
        return_tensors="pt",
    )
    ids = inputs["input_ids"]
    assert (ids == processor.image_token_id).sum() == 2 * 8
    # 25 tokens per second, less the half token that the second convolution drops.
    assert (ids == processor.audio_token_id).sum() == 2 * 37
    assert (ids == processor.video_token_id).sum() == 2 * 2 * 4
    assert inputs["attention_mask"][:, -1].all(), "padding belongs on the left"
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=10, use_audio_in_video=False)
    new = out[:, ids.shape[1] :]
    assert 1 <= new.shape[1] <= 10
    suppressed = torch.tensor(model.generation_config.suppress_tokens)
    assert not torch.isin(new, suppressed).any()
    answers = {processor.tokenizer.decode(row, skip_special_tokens=True) for row in new}
    assert len(answers) == len(chats), "the answer does not depend on the input"
