"""One door to the decoders: a part, or all media parts of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omnitrace_core.errors import MediaMemory, SampleError, UnknownPartType
from omnitrace_core.media.audio import decode_audio
from omnitrace_core.media.fetch import media_name
from omnitrace_core.media.image import decode_image
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.media.video import decode_video
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import DecodedMedia, Part


def decode_part(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool = True
) -> DecodedMedia:
    """Fetch and decode one media part.

    want_sound: False leaves out the sound track of a video.

    Raises:
        InvalidSample: the part's options contradict each other, or it has no media.
        UnknownPartType: the part is not an image, audio or video.
        MediaError: missing, denied, too large, empty or corrupt; see its subclasses.
    """
    if part.type == "image":
        return decode_image(part, options, rules)
    if part.type == "audio":
        return decode_audio(part, options, rules)
    if part.type == "video":
        return decode_video(part, options, rules, want_sound=want_sound)
    raise UnknownPartType(f"{part.type!r} is not a media type; use image, audio or video")


def decode_parts(
    parts: Sequence[Part], decode: Callable[[Part], DecodedMedia]
) -> dict[int, DecodedMedia]:
    """All media parts among these, by part index. decode: how to, in this process or another.

    Raises: as `decode` does; the message of a SampleError names the part by index and address.
    """
    decoded: dict[int, DecodedMedia] = {}
    for index, part in enumerate(parts):
        if part.type == "text":
            continue
        try:
            decoded[index] = decode(part)
        except SampleError as error:
            raise type(error)(f"part {index}: {error}") from error
        except MemoryError as error:
            raise MediaMemory(
                f"part {index}: {media_name(part)}: does not fit in memory; lower media.max_*"
            ) from error
    return decoded
