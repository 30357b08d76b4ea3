"""The sound of a video, together with its frames."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import BinaryIO

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedAudio, DecodedVideo
from omnitrace_core.errors import MediaTooLarge
from omnitrace_core.media.containers.sniff import Kind
from omnitrace_core.media.sizes import check_decoded
from omnitrace_core.media.sound.track import Request, Sound, check_track_number, read_sound
from omnitrace_core.media.sound.waveform import Interval
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

# Less sound that is left out is not noted.
_SHORT_S = 0.1


def add_sound(
    file: BinaryIO,
    kind: Kind,
    video: DecodedVideo,
    part: Part,
    options: MediaOptions,
    rules: MediaRules,
) -> DecodedVideo:
    """A decoded video with the sound that goes with its frames, if the file has a sound track.

    The sound begins where the first frame does: what comes earlier is left out, and a track that
    begins later is preceded by silence, so that sound and frames stay together in the model's
    input. It is cut at video_end; without one it may outlast the frames.

    Raises:
        InvalidSample: there is no sound track of the number audio_track.
        MediaCorrupt: the track cannot be decoded, or much less of it than there should be.
        MediaTooLarge: the track is longer than `media.max_video_s`.
    """
    name, chosen = media_name(part), part.options
    request = Request(
        name,
        Interval(video.start_s, chosen.video_end, options.max_heard_s),
        rules.sample_rate,
        chosen.audio_track,
        options.max_video_s,
        partial(too_long, options=options, what=f"{name}: its sound track lasts"),
        lambda n_bytes: check_decoded(video.frames.nbytes + n_bytes, chosen, options, name),
        "set media.video_sound: false",
        of_video=True,
    )
    sound = read_sound(file, kind, request)
    if sound is None:
        check_track_number(chosen.audio_track, 0, name)
        return video
    sound = _without_padding(sound, video.duration_s, rules.sample_rate)
    if max(video.start_s, sound.silent_s) >= request.interval.heard_end_s(sound.duration_s):
        notes = (*video.notes, "the sound track has nothing in the chosen interval")
        return replace(video, notes=notes)
    begin_s = max(sound.silent_s, chosen.video_start or 0.0)
    early = f"{video.start_s - begin_s:.2f} s of sound before the first frame are left out"
    notes = (*video.notes, *sound.notes, *request.interval.notes(sound.duration_s))
    notes += (early,) * (video.start_s - begin_s > _SHORT_S)
    duration_s = max(video.duration_s, sound.duration_s)
    heard = DecodedAudio(sound.waveform, rules.sample_rate, sound.start_s, duration_s, video.sha256)
    return replace(video, sound=heard, duration_s=duration_s, notes=notes)


def _without_padding(sound: Sound, video_s: float, model_rate: int) -> Sound:
    """The sound without the rest of its codec's last frame behind the end of the video.

    Encoders fill that frame, and most files do not say with what. Even a loud rest is less than the
    shortest unit, and would be a time bin of its own.
    """
    n_after = round((sound.duration_s - video_s) * sound.rate)
    n = max(int((video_s - sound.start_s) * model_rate), 0)
    if not 0 < n_after <= sound.n_padding or not n or n >= len(sound.waveform):
        return sound
    return replace(sound, waveform=sound.waveform[:n], duration_s=video_s)


def too_long(duration_s: float, *, options: MediaOptions, what: str) -> MediaTooLarge:
    """The error of a video whose pictures or sound go on for too long."""
    return MediaTooLarge(
        f"{what} {duration_s:,.1f} s, above media.max_video_s={options.max_video_s:,.1f}; "
        "raise the limit in the config or cut the video"
    )
