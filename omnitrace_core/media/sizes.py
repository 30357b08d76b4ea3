"""Sizes that a Qwen-family processor accepts, and the pixel budget of video frames."""

from __future__ import annotations

import math

from omnitrace_core.errors import InvalidSample, MediaError, MediaTooLarge
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import PartOptions

# Of the longer to the shorter side; the model's own processor refuses more.
MAX_ASPECT = 200


def smart_resize(
    width: int, height: int, factor: int, min_pixels: int, max_pixels: float, name: str
) -> tuple[int, int]:
    """Width and height nearest to the original's that the model accepts.

    Both are multiples of `factor`, their product lies in [min_pixels, max_pixels] as far as whole
    multiples allow, and the aspect ratio is kept as closely as they allow. The same numbers as
    Qwen2-VL's image processor.

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
    """Width and height at which the model sees an image.

    Limits of the part win over `media.image_max_pixels`, and that over the model's.

    Raises:
        InvalidSample: a pixel option is not positive, or min_pixels is above max_pixels.
        MediaError: the aspect ratio is not accepted.
    """
    _check_pixels(part, name)
    most = options.image_max_pixels or rules.image_max_pixels
    most = part.max_pixels or max(most, part.min_pixels or 0)
    least = part.min_pixels or min(rules.image_min_pixels, most)
    return smart_resize(width, height, rules.factor, least, most, name)


def frame_size(
    width: int,
    height: int,
    n_frames: int,
    part: PartOptions,
    options: MediaOptions,
    rules: MediaRules,
    name: str,
) -> tuple[int, int]:
    """Width and height at which the model sees each of a video's `n_frames` frames.

    A frame's share of the total budget is capped by the model's maximum and never falls below its
    minimum plus 5 % (the rule of qwen-omni-utils).

    Raises: as `image_size`.
    """
    _check_pixels(part, name)
    least = part.min_pixels or rules.video_min_pixels
    budget = part.total_pixels or options.video_total_pixels
    share = min(rules.video_max_pixels, budget / n_frames * rules.frame_factor)
    most = max(share, int(least * 1.05))
    if part.max_pixels:
        most = min(most, part.max_pixels)
        least = min(least, part.max_pixels)
    return smart_resize(width, height, rules.factor, least, most, name)


def check_decoded(n_bytes: float, part: PartOptions, options: MediaOptions, name: str) -> None:
    """Hold a medium, as the model sees it, to `media.max_decoded_mib` before it is decoded.

    Raises:
        MediaTooLarge: it takes more; the message names the part's options that may be at fault.
    """
    if n_bytes <= options.max_decoded_mib << 20:
        return
    asked = [
        f"{option}={value}"
        for option in ("min_pixels", "max_pixels", "total_pixels", "nframes", "fps", "min_frames")
        if (value := getattr(part, option)) is not None
    ]
    remedy = f"lower the part's {', '.join(asked)}" if asked else "cut or shrink the media"
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
            f"{name}: min_pixels={part.min_pixels} is above max_pixels={part.max_pixels}"
        )
