"""Build ready samples of every modality in memory, without files and decoders."""

from __future__ import annotations

import numpy as np

from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedMedia, DecodedVideo
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import UnitOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import Message, Part, ReadySample, Sample


def image(seed: int, height: int = 56, width: int = 84) -> DecodedImage:
    """Noise; the original has 640 x 480 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return DecodedImage(pixels, width=640, height=480, sha256="image")


def sound(seed: int, seconds: float, start_s: float = 0.0) -> DecodedAudio:
    """Noise of `seconds` seconds at 16 kHz."""
    noise = np.random.default_rng(seed).standard_normal(round(16_000 * seconds)) * 0.1
    return DecodedAudio(noise.astype(np.float32), 16_000, start_s, start_s + seconds, "sound")


def video(seed: int, n_frames: int = 8, with_sound: bool = True) -> DecodedVideo:
    """Noise at two frames per second."""
    frames = np.random.default_rng(seed).integers(0, 255, (n_frames, 56, 56, 3), dtype=np.uint8)
    seconds = n_frames / 2
    return DecodedVideo(
        frames=frames,
        frame_times_s=np.arange(n_frames, dtype=np.float64) * 0.5,
        fps=2.0,
        width=320,
        height=240,
        start_s=0.0,
        end_s=seconds,
        duration_s=seconds,
        sound=sound(seed, seconds) if with_sound else None,
        sha256="video",
    )


def ready(
    parts: list[str | DecodedMedia],
    *,
    response: str | None = None,
    response_token_ids: tuple[int, ...] | None = None,
    units: UnitOptions | None = None,
    rules: MediaRules | None = None,
) -> ReadySample:
    """A sample of one user message whose parts are texts and decoded media."""
    content: list[Part] = []
    media: dict[int, DecodedMedia] = {}
    for index, part in enumerate(parts):
        if isinstance(part, str):
            content.append(Part("text", text=part))
            continue
        media[index] = part
        kind = {DecodedImage: "image", DecodedAudio: "audio", DecodedVideo: "video"}[type(part)]
        content.append(Part(kind, uri=f"memory://{index}"))  # type: ignore[arg-type]
    sample = Sample(
        "made",
        (Message("user", tuple(content)),),
        response=response,
        response_token_ids=response_token_ids,
    )
    reader = SampleReader(ReadingOptions(rules or MediaRules(), units=units or UnitOptions()))
    return reader.make_ready(sample, media, {})


def one_of_each(units: UnitOptions | None = None) -> dict[str, ReadySample]:
    """Text, image, audio, video, video without sound, and all four in one sample."""
    parts: dict[str, list[str | DecodedMedia]] = {
        "text": ["The lamp is red. It stands in the hall.", "Where is the lamp?"],
        "image": [image(1), "What is this?", image(2, 28, 56)],
        "audio": [sound(3, 2.013), "What was said? And by whom?"],
        "video": ["Watch this.", video(4), "What happened?"],
        "silent": [video(5, with_sound=False), "What moved?"],
        "mixed": ["All.", image(6), sound(7, 1.5), video(8), "Tell me. Everything."],
    }
    return {name: ready(content, units=units) for name, content in parts.items()}


def image_with_grid(rows: int, columns: int, height: int = 112, width: int = 168) -> ReadySample:
    """An image of 640 x 480 (by default 4 x 6 tokens) cut into cells, and a question."""
    options = UnitOptions(image="grid", grid=(rows, columns))
    return ready([image(1, height, width), "What?"], units=options)
