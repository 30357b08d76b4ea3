"""Decode one media part in this process."""

from __future__ import annotations

from dataclasses import replace

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.errors import InvalidSample, UnknownPartType
from omnitrace_core.media.audio import decode_audio
from omnitrace_core.media.frame_list import decode_frame_list
from omnitrace_core.media.image import decode_image
from omnitrace_core.media.option_notes import option_notes
from omnitrace_core.media.sound.track import check_track_number
from omnitrace_core.media.video import decode_video
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.samples.checks import check_options


def decode_part(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool = True
) -> DecodedMedia:
    """Fetch and decode one media part; options that it does not follow are noted.

    want_sound: False leaves out the sound track of a video.

    Raises:
        InvalidSample: the part's options are out of range or contradict each other, or it has no
            media, or it has the option audio_track and by its form no sound.
        UnknownPartType: the part is not an image, audio or video.
        MediaError: missing, denied, too large, empty or corrupt; see its subclasses.
    """
    check_options(part.options, media_name(part), is_list=bool(part.frames))
    media = _decode(part, options, rules, want_sound=want_sound)
    notes = option_notes(part, media, options, rules, want_sound=want_sound)
    return replace(media, notes=(*media.notes, *notes))


def _decode(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool
) -> DecodedMedia:
    if part.frames:
        if part.type != "video" or part.uri or part.data is not None:
            raise InvalidSample(
                f"{media_name(part)}: a list of frames is a video of its own; give neither another "
                "type nor uri or data beside it"
            )
        check_track_number(part.options.audio_track, 0, media_name(part))
        return decode_frame_list(part, options, rules)
    if part.type == "image":
        check_track_number(part.options.audio_track, 0, media_name(part))
        return decode_image(part, options, rules)
    if part.type == "audio":
        return decode_audio(part, options, rules)
    if part.type == "video":
        return decode_video(part, options, rules, want_sound=want_sound)
    raise UnknownPartType(f"{part.type!r} is not a media type; use image, audio or video")
