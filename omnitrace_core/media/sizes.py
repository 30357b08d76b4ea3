"""Sizes that Qwen processors accept, and the pixel budget of video frames."""

from __future__ import annotations

import math

from omnitrace_core.errors import InvalidSample, MediaError, MediaTooLarge
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import PartOptions

# Of the longer to the shorter side; the model's processor refuses more.
MAX_ASPECT = 200


def smart_resize(
    width: int, height: int, factor: int, min_pixels: int, max_pixels: float, name: str
) -> tuple[int, int]:
    """The width and height nearest to the original's that the model accepts.

    Both are multiples of `factor`. As far as multiples allow, their product lies in [min_pixels,
    max_pixels] and the aspect ratio is kept. The result equals that of Qwen2-VL's image processor.

    Raises:
        MediaError: one side is more than 200 times the other.
    """
    aspect = max(width, height) / min(width, height)
    if aspect > MAX_ASPECT:
        raise MediaError(
            f"{name}: {width}x{height} has an aspect ratio of {aspect:.0f}, above {MAX_ASPECT}, "
            "which the model does not accept; crop it"
        )
    wide, high = (round(side / factor) * factor for side in (width, height))
    if wide * high > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        wide, high = (
            max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height)
        )
    elif wide * high < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        wide, high = (math.ceil(side * grow / factor) * factor for side in (width, height))
    return wide, high


def image_size(
    width: int, height: int, part: PartOptions, options: MediaOptions, rules: MediaRules, name: str
) -> tuple[int, int]:
    """The width and height at which the model gets an image.

    The part's limits take precedence over `media.image_max_pixels`, which takes precedence over the
    model's.

    Raises:
        InvalidSample: a pixel option is not positive, or min_pixels is above max_pixels.
        MediaError: the aspect ratio is not accepted.
    """
    _check_pixels(part, name)
    max_pixels = options.image_max_pixels or rules.image_max_pixels
    max_pixels = part.max_pixels or max(max_pixels, part.min_pixels or 0)
    min_pixels = part.min_pixels or min(rules.image_min_pixels, max_pixels)
    return smart_resize(width, height, rules.factor, min_pixels, max_pixels, name)


def frame_size(
    width: int,
    height: int,
    n_frames: int,
    part: PartOptions,
    options: MediaOptions,
    rules: MediaRules,
    name: str,
) -> tuple[int, int]:
    """The width and height at which the model gets each of a video's `n_frames` frames.

    A frame's share of the total pixel budget is at most the model's maximum and at least its
    minimum plus 5 % (the rule of qwen-omni-utils).

    Raises: as `image_size`.
    """
    _check_pixels(part, name)
    min_pixels = part.min_pixels or rules.video_min_pixels
    budget = part.total_pixels or options.video_total_pixels
    share = min(rules.video_max_pixels, budget / n_frames * rules.frame_factor)
    max_pixels = max(share, int(min_pixels * 1.05))
    if part.max_pixels:
        max_pixels = min(max_pixels, part.max_pixels)
        min_pixels = min(min_pixels, part.max_pixels)
    return smart_resize(width, height, rules.factor, min_pixels, max_pixels, name)


def check_decoded(n_bytes: float, part: PartOptions, options: MediaOptions, name: str) -> None:
    """Check decoded media against `media.max_decoded_mib` before they are decoded.

    n_bytes: their size as the model gets them.

    Raises:
        MediaTooLarge: they take more; the message names the part's options that may be the cause.
    """
    if n_bytes <= options.max_decoded_mib << 20:
        return
    requested = [
        f"{option}={value}"
        for option in ("min_pixels", "max_pixels", "total_pixels", "nframes", "fps", "min_frames")
        if (value := getattr(part, option)) is not None
    ]
    remedy = f"lower the part's {', '.join(requested)}" if requested else "cut or shrink the media"
    raise MediaTooLarge(
        f"{name}: {n_bytes / 2**20:,.0f} MiB when decoded, above media.max_decoded_mib="
        f"{options.max_decoded_mib:,}; {remedy}, or raise the limit in the config"
    )


def _check_pixels(part: PartOptions, name: str) -> None:
    for option in ("min_pixels", "max_pixels", "total_pixels"):
        value = getattr(part, option)
        if value is not None and value < 1:
            raise InvalidSample(f"{name}: {option}={value}; give a positive number of pixels")
    if part.min_pixels and part.max_pixels and part.min_pixels > part.max_pixels:
        raise InvalidSample(
            f"{name}: min_pixels={part.min_pixels} is above max_pixels={part.max_pixels}; lower it"
        )
