"""Decode the sound track of a container, on the clock of the file: of a video, or alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedAudio, DecodedVideo
from omnitrace_core.errors import MediaCorrupt, MediaTooLarge
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.progress.media_times import importing
from omnitrace_core.media.sizes import check_decoded
from omnitrace_core.media.waveform import SAMPLE_BYTES, to_model_rate
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Float32, Part

if TYPE_CHECKING:
    from decord import AudioReader

_RATES = np.array([8, 11.025, 12, 16, 22.05, 24, 32, 44.1, 48, 64, 88.2, 96, 176.4, 192]) * 1000
_KNOWN_RATE = 16_000
# Encoders fill the last frame with silence: up to 2,048 samples (HE-AAC) are no sound of the video.
_PADDING = 2048


def read_track(
    path: Path,
    video: DecodedVideo,
    told_s: float | None,
    part: Part,
    options: MediaOptions,
    rules: MediaRules,
) -> DecodedVideo:
    """A decoded video with the sound that goes with its frames, if the file has a sound track.

    The sound begins where the first frame does: what comes earlier is left out, and a track that
    begins later is preceded by silence, so that sound and frames stay together in the model's
    input. It is cut at video_end; without one it may outlast the frames.
    told_s: when the track ends by its container, None if that does not say.

    Raises:
        MediaCorrupt: the track cannot be decoded, or much less of it than there should be.
        MediaTooLarge: the track is longer than `media.max_video_s`.
    """
    name = media_name(part)
    track = read_native(path, name, "set media.video_sound: false")
    if track is None:
        return video
    mono, rate = track.mono, track.rate
    if told_s is not None:
        mono = track.cut_to(told_s, name)
    _check_length(len(mono), rate, options, name)
    if len(mono) - video.duration_s * rate <= _PADDING:
        mono = mono[: int(video.duration_s * rate)]
    first, last = _chosen(video.start_s, part.options.video_end, len(mono), rate)
    notes = list(video.notes)
    if max(first, track.n_silent) >= last:
        notes.append("the sound track has nothing in the chosen interval")
        return replace(video, notes=tuple(notes))
    if track.n_silent - first > _PADDING:
        notes.append(
            f"the sound track begins at {track.n_silent / rate:.2f} s, with silence before"
        )
    n_bytes = video.frames.nbytes + (last - first) / rate * rules.sample_rate * SAMPLE_BYTES
    check_decoded(n_bytes, part.options, options, name)
    waveform = to_model_rate(mono[first:last], rate, rules.sample_rate, name, notes)
    duration_s = max(video.duration_s, len(mono) / rate)
    sound = DecodedAudio(waveform, rules.sample_rate, first / rate, duration_s, video.sha256)
    return replace(video, sound=sound, duration_s=duration_s, notes=tuple(notes))


def _chosen(start_s: float, end_s: float | None, n: int, rate: int) -> tuple[int, int]:
    """The samples [first, last) that go with frames from `start_s` on."""
    return round(start_s * rate), n if end_s is None else min(n, round(end_s * rate))


def _check_length(n_samples: int, rate: int, options: MediaOptions, name: str) -> None:
    if n_samples > options.max_video_s * rate + _PADDING:
        raise too_long(n_samples / rate, options, f"{name}: its sound track lasts")


def too_long(duration_s: float, options: MediaOptions, what: str) -> MediaTooLarge:
    """The error of a video whose pictures or sound go on for too long."""
    return MediaTooLarge(
        f"{what} {duration_s:,.1f} s, above media.max_video_s={options.max_video_s:,.1f}; "
        "raise the limit in the config or cut the video"
    )


@dataclass(frozen=True, slots=True)
class Track:
    """A sound track from time 0 of its file on: [n] float32 at `rate`, `n_silent` of them added."""

    mono: Float32
    rate: int
    n_silent: int

    def cut_to(self, end_s: float, name: str) -> Float32:
        """The samples up to where the container says that the track ends.

        Raises:
            MediaCorrupt: much less could be decoded.
        """
        n_told = round(end_s * self.rate)
        if n_told - len(self.mono) > 2 * _PADDING:
            raise MediaCorrupt(
                f"{name}: damaged: {len(self.mono) / self.rate:.3f} of {end_s:.3f} s of its sound "
                "could be decoded; copy it again from its source"
            )
        return self.mono[:n_told] if len(self.mono) - n_told <= _PADDING else self.mono


def read_native(path: Path, name: str, remedy: str) -> Track | None:
    """The track that FFmpeg takes for the best, at its own rate, channels mixed; None without one.

    remedy: what can be done about one that cannot be decoded, other than to encode it again.

    decord's own conversion to another rate restarts its filter at every packet, so the samples are
    taken as they are. It does not tell their rate nor the number of channels: a second reading, at
    a known rate and unmixed, does.
    """
    known = _open_track(path, _KNOWN_RATE, False, name, remedy)
    if known is None:
        return None
    n_channels, n_known = known.shape
    # A reader holds several copies of an hour's samples: never two readers at once.
    del known
    native = _open_track(path, -1, True, name, remedy)
    if native is None or not native.shape[1] or not n_known:
        return None
    rate = _nearest_rate(_KNOWN_RATE * native.shape[1] / n_known)
    n_silent = native.add_padding()
    # decord has no other way to the samples that does not go one by one.
    mono = native._array[0]
    del native
    if n_channels == 2:
        # FFmpeg mixes two channels to (left + right) / sqrt(2), which overshoots full scale.
        mono = np.divide(mono, np.sqrt(2, dtype=np.float32), out=mono)
    return Track(mono, rate, n_silent)


def _open_track(path: Path, rate: int, mono: bool, name: str, remedy: str) -> AudioReader | None:
    with importing():
        import decord

    # FFmpeg would write its own account of broken files to stderr; our errors carry the cause.
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.AudioReader(str(path), sample_rate=rate, mono=mono)
    except (decord.DECORDError, RuntimeError) as error:
        if "Can't find audio stream" in str(error):
            return None
        raise MediaCorrupt(
            f"{name}: its sound track cannot be decoded; encode it again, or {remedy}"
        ) from error
    report_progress()
    return reader


def _nearest_rate(estimate: float) -> int:
    """A customary sample rate within 0.1 % of an estimate, else the estimate itself."""
    nearest = float(_RATES[np.abs(_RATES - estimate).argmin()])
    return round(nearest if abs(nearest - estimate) <= 1e-3 * nearest else estimate)
