"""Sizes and times of decoded media, as needed to cut units, without pixels and waveforms.

An extent is a few numbers, so it can be stored with a trace, and units can be cut from it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedMedia, DecodedVideo
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.records import Modality


@dataclass(frozen=True, slots=True)
class Extent:
    """The size and the times of one decoded part.

    kind: image, audio or video.
    width, height: pixels of the original, 0 for audio.
    start_s, end_s: of the audio, or of the video's frames; 0 for images.
    step_edges_s: edges of the temporal steps of a video's visual grid, n_steps + 1 values; empty
    for other media.
    sound: (start_s, end_s) of an audio, or of a video's sound track; None without sound.
    """

    kind: Modality
    width: int
    height: int
    start_s: float
    end_s: float
    step_edges_s: tuple[float, ...]
    sound: tuple[float, float] | None


def extent_of(media: DecodedMedia, rules: MediaRules) -> Extent:
    """The extent of a decoded part; `rules` say how many frames one temporal step covers."""
    if isinstance(media, DecodedImage):
        return Extent("image", media.width, media.height, 0.0, 0.0, (), None)
    if isinstance(media, DecodedAudio):
        end_s = sound_end_s(media)
        return Extent("audio", 0, 0, media.start_s, end_s, (), (media.start_s, end_s))
    sound = media.sound
    return Extent(
        kind="video",
        width=media.width,
        height=media.height,
        start_s=media.start_s,
        end_s=media.end_s,
        step_edges_s=_step_edges(media, rules.frame_factor),
        sound=None if sound is None else (sound.start_s, sound_end_s(sound)),
    )


def sound_end_s(sound: DecodedAudio) -> float:
    """Time at which the decoded waveform ends, in seconds of the original file."""
    return sound.start_s + len(sound.waveform) / sound.sample_rate


def frame_bins(video: DecodedVideo, frame_factor: int) -> list[tuple[float, float]]:
    """[start, end) in seconds of each temporal step of the visual grid.

    One step covers `frame_factor` sampled frames. It lasts until the first frame of the next step,
    by the times of the frames in the file; the first step begins where the clip begins, and the
    last ends where the clip ends.
    """
    return list(pairwise(_step_edges(video, frame_factor)))


def _step_edges(video: DecodedVideo, frame_factor: int) -> tuple[float, ...]:
    later = (float(time) for time in video.frame_times_s[frame_factor::frame_factor])
    return (video.start_s, *later, video.end_s)
