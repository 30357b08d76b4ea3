"""Make samples of the world ready for a model without files, for training and tuning.

The numbers are those of the files and the real decoders, except for what H.264 and AAC lose.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedMedia, DecodedVideo
from omnitrace_core.media.frames.sampling import count_frames, spread_frames
from omnitrace_core.media.sizes import frame_size, image_size
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.reader import SampleReader
from omnitrace_core.records import Message, PartOptions, ReadySample, Sample
from omnitrace_core.records import Part as MessagePart
from training.world.rendering import (
    FPS,
    SAMPLE_RATE,
    SIDE,
    Pixels,
    Wave,
    clip_sound,
    draw_clip,
    draw_picture,
    play,
)
from training.world.samples import Clip, Part, Picture, Recording, Text, WorldSample


def as_ready(
    sample: WorldSample, reader: SampleReader, *, answered: bool = False, cut: bool = True
) -> ReadySample:
    """A sample with its media decoded and its units cut.

    answered: include the right response. cut: cut units; training needs none and is faster without.
    """
    content: list[MessagePart] = []
    media: dict[int, DecodedMedia] = {}
    for index, part in enumerate(sample.parts):
        if isinstance(part, Text):
            content.append(MessagePart("text", text=part.text, evidence=not part.instructs))
            continue
        media[index] = decoded(part, reader.options.rules, reader.options.media)
        kind = {Picture: "image", Recording: "audio", Clip: "video"}[type(part)]
        content.append(MessagePart(kind, uri=f"world://{index}"))  # type: ignore[arg-type]
    content += [
        MessagePart("text", text=text, evidence=is_evidence)
        for text, is_evidence in sample.prompt_parts
    ]
    made = Sample(
        sample.sample_id,
        (Message("user", tuple(content)),),
        response=sample.response if answered else None,
        reference_answer=sample.response,
        options=sample.options,
    )
    return reader.make_ready(made, media, {}) if cut else ReadySample(made, media, ())


def decoded(part: Part, rules: MediaRules, options: MediaOptions) -> DecodedMedia:
    """A part's medium, sized and sampled by the model's rules.

    Raises:
        TypeError: the part is a text.
    """
    if isinstance(part, Picture):
        width, height = image_size(SIDE, SIDE, PartOptions(), options, rules, "a picture")
        return DecodedImage(_resized(draw_picture(part), width, height), SIDE, SIDE, "")
    if isinstance(part, Recording):
        return _audio(play(part))
    if isinstance(part, Clip):
        return _video(part, rules, options)
    raise TypeError(f"{type(part).__name__} has no medium")


def _video(clip: Clip, rules: MediaRules, options: MediaOptions) -> DecodedVideo:
    frames = draw_clip(clip)
    seconds = float(len(clip.shapes))
    n_frames = count_frames(len(frames), FPS, PartOptions(), options, rules, "a clip")
    picks = spread_frames(0, len(frames) - 1, n_frames)
    width, height = frame_size(SIDE, SIDE, n_frames, PartOptions(), options, rules, "a clip")
    sound = clip_sound(clip)
    return DecodedVideo(
        frames=np.stack([_resized(frames[k], width, height) for k in picks]),
        frame_times_s=picks / FPS,
        fps=n_frames / len(frames) * FPS,
        width=SIDE,
        height=SIDE,
        start_s=0.0,
        end_s=seconds,
        duration_s=seconds,
        sound=None if sound is None else _audio(sound),
        sha256="",
    )


def _audio(wave: Wave) -> DecodedAudio:
    return DecodedAudio(wave, SAMPLE_RATE, 0.0, wave.size / SAMPLE_RATE, "")


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)
