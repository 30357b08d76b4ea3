"""Decode one media part in this process."""

from __future__ import annotations

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedImage, DecodedMedia
from omnitrace_core.errors import InvalidSample, UnknownPartType
from omnitrace_core.media.audio import decode_audio
from omnitrace_core.media.fetching.fetch import read_media, sha256_of
from omnitrace_core.media.frame_list import decode_frame_list
from omnitrace_core.media.pictures.picture import read_picture
from omnitrace_core.media.sizes import check_decoded, image_size
from omnitrace_core.media.sound.track import check_track_number
from omnitrace_core.media.video import decode_video
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.samples.checks import check_options


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
    check_options(part.options, media_name(part), is_list=bool(part.frames))
    if part.frames:
        if part.type != "video" or part.uri or part.data is not None:
            raise InvalidSample(
                f"{media_name(part)}: a list of frames is a video of its own; give neither another "
                "type nor uri or data beside it"
            )
        check_track_number(part.options.audio_track, 0, media_name(part))
        return decode_frame_list(part, options, rules)
    if part.type == "image":
        return decode_image(part, options, rules)
    if part.type == "audio":
        return decode_audio(part, options, rules)
    if part.type == "video":
        return decode_video(part, options, rules, want_sound=want_sound)
    raise UnknownPartType(f"{part.type!r} is not a media type; use image, audio or video")


def decode_image(part: Part, options: MediaOptions, rules: MediaRules) -> DecodedImage:
    """Fetch and decode an image part.

    Raises:
        InvalidSample: min_pixels above max_pixels, or neither uri nor data.
        MediaTooLarge: above `media.max_image_pixels`, by the header, before decoding; or above
            `media.max_decoded_mib` at the requested size.
        MediaCorrupt: not an image, or a truncated one.
        MediaError: fetching failed (see `read_media`), or the aspect ratio is not accepted.
    """
    name = media_name(part)
    content = read_media(part, options)

    def size_of(width: int, height: int) -> tuple[int, int]:
        size = image_size(width, height, part.options, options, rules, name)
        check_decoded(size[0] * size[1] * 3, part.options, options, name)
        return size

    picture = read_picture(content, size_of, options, name)
    return DecodedImage(
        picture.pixels, picture.width, picture.height, sha256_of(content), picture.notes
    )
