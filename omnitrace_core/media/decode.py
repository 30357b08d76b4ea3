"""One door to the decoders: a part, or all media parts of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omnitrace_core.errors import MediaMemory, MediaTooLarge, SampleError, UnknownPartType
from omnitrace_core.media.audio import decode_audio
from omnitrace_core.media.fetching.fetch import media_name
from omnitrace_core.media.image import decode_image
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.media.video import decode_video
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import DecodedAudio, DecodedImage, DecodedMedia, Part
from omnitrace_core.samples.row_checks import check_options


def decode_part(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool = True
) -> DecodedMedia:
    """Fetch and decode one media part.

    want_sound: False leaves out the sound track of a video.

    Raises:
        InvalidSample: the part's options are out of range or contradict each other, or it has no
            media.
        UnknownPartType: the part is not an image, audio or video.
        MediaError: missing, denied, too large, empty or corrupt; see its subclasses.
    """
    check_options(part.options, media_name(part))
    if part.type == "image":
        return decode_image(part, options, rules)
    if part.type == "audio":
        return decode_audio(part, options, rules)
    if part.type == "video":
        return decode_video(part, options, rules, want_sound=want_sound)
    raise UnknownPartType(f"{part.type!r} is not a media type; use image, audio or video")


def decode_parts(
    parts: Sequence[Part], decode: Callable[[Part], DecodedMedia], options: MediaOptions
) -> dict[int, DecodedMedia]:
    """All media parts among these, by part index. decode: how to, in this process or another.

    Raises:
        MediaTooLarge: together they take more than `media.max_decoded_mib`.
        SampleError: as `decode` does; the message names the part by index and address.
    """
    decoded: dict[int, DecodedMedia] = {}
    n_bytes = 0
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
        n_bytes += _n_bytes(decoded[index])
        if n_bytes > options.max_decoded_mib << 20:
            raise MediaTooLarge(
                f"part {index}: {media_name(part)}: with it the sample's media take "
                f"{n_bytes / 2**20:,.0f} MiB when decoded, above media.max_decoded_mib="
                f"{options.max_decoded_mib:,}; split the sample or raise the limit in the config"
            )
    return decoded


def _n_bytes(media: DecodedMedia) -> int:
    """What pixels and samples take."""
    if isinstance(media, DecodedImage):
        return media.pixels.nbytes
    if isinstance(media, DecodedAudio):
        return media.waveform.nbytes
    return media.frames.nbytes + (_n_bytes(media.sound) if media.sound else 0)
