"""Notes on options of a part that its medium did not follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from omnitrace_core.decoded_media import DecodedMedia, DecodedVideo
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions

_OF_SOUND = frozenset({"audio_start", "audio_end"})
_OF_IMAGES = frozenset({"min_pixels", "max_pixels"})
_USED = {
    "image": _OF_IMAGES,
    "audio": _OF_SOUND | {"audio_track"},
    "video": frozenset(field.name for field in fields(PartOptions)) - _OF_SOUND,
}

_NOUNS = {"image": "an image", "audio": "an audio part", "video": "a video"}


def option_notes(
    part: Part, media: DecodedMedia, options: MediaOptions, rules: MediaRules, *, want_sound: bool
) -> Iterator[str]:
    """Notes on options that have no effect, or that the number of frames does not follow.

    want_sound: as it was decoded.
    """
    requested, used = part.options, _USED[part.type]
    names = [field.name for field in fields(requested) if field.name not in used]
    unused = [name for name in names if getattr(requested, name) is not None]
    if unused:
        yield f"{_listed(unused)} no effect on {_NOUNS[part.type]}"
    if not isinstance(media, DecodedVideo):
        return
    if requested.audio_track is not None and not (want_sound and options.video_sound):
        yield f"audio_track={requested.audio_track} has no effect: sounds of videos are not used"
    n, least, most = len(media.frames), requested.min_frames, requested.max_frames
    if least is not None and n < least:
        yield f"min_frames={least}, but the model gets {n} frames"
    if most is not None and n > most:
        multiple = f"a multiple of {rules.frame_factor}"
        yield f"max_frames={most}, but the model gets {n} frames, {multiple}"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'}"
