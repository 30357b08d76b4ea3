"""Sizes of images and frames equal those of the official processor."""

from __future__ import annotations

import numpy as np
import pytest

from omnitrace_core.media.sizes import frame_size, smart_resize
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import PartOptions

RULES = MediaRules()
DEFAULTS = MediaOptions()


def test_smart_resize_equals_the_official_function() -> None:
    from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

    enable_transformers_vision()
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as official

    rng = np.random.default_rng(0)
    for width, height in rng.integers(1, 4000, (2000, 2)).tolist():
        if max(width, height) / min(width, height) > 200:
            continue
        max_pixels = int(rng.integers(60 * 28 * 28, 1280 * 28 * 28))
        expected = official(height, width, 28, 56 * 56, max_pixels)[::-1]
        assert smart_resize(width, height, 28, 56 * 56, max_pixels, "") == expected


@pytest.mark.parametrize(
    ("n_frames", "options", "expected"),
    [
        # 4,200,000 pixels for 22 frames, in pairs: 381,818 each.
        (22, {}, (812, 448)),
        # Few frames: the model's maximum per frame, 602,112.
        (4, {}, (1008, 560)),
        # Many frames: never below the minimum plus 5 %.
        (768, {}, (420, 224)),
        (22, {"max_pixels": 50_176}, (280, 168)),
        (22, {"total_pixels": 2_200_000}, (588, 308)),
    ],
)
def test_frames_share_a_budget(
    n_frames: int, options: dict[str, int], expected: tuple[int, int]
) -> None:
    part = PartOptions(**options)
    assert frame_size(1280, 720, n_frames, part, DEFAULTS, RULES, "") == expected
