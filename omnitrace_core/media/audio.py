"""Audio files: one channel of float32 at the model's sample rate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from omnitrace_core.errors import MediaCorrupt, MediaEmpty, MediaTooLarge
from omnitrace_core.media.container import (
    HEAD_BYTES,
    TRACKS,
    Kind,
    check_complete,
    check_kind,
    sound_end_s,
)
from omnitrace_core.media.fetch import media_name, media_path, sha256_of
from omnitrace_core.media.progress import still_working
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.media.track import read_native
from omnitrace_core.media.waveform import cut_range, to_model_rate
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import DecodedAudio, Float32, Part

if TYPE_CHECKING:
    from soundfile import SoundFile

# Frames read at once: keeps many-channel files small until they are mixed down.
_BLOCK = 1 << 18
# libsndfile's length of a file that does not tell it.
_UNKNOWN_LENGTH = 1 << 62
# The length of an MP3 without a length header is an estimate, off by a few 1152-sample frames.
_MP3_SLACK = 4 * 1152


@dataclass(frozen=True, slots=True)
class _Sound:
    """An interval of a file's sound: [n] float32 at `rate`, from `start_s` of `duration_s` on."""

    mono: Float32
    rate: int
    start_s: float
    duration_s: float


def decode_audio(part: Part, options: MediaOptions, rules: MediaRules) -> DecodedAudio:
    """Fetch and decode an audio part, cut to its audio_start and audio_end.

    MP4, M4A, MOV, Matroska, WebM and bare AAC give their sound track, also if they have pictures.

    Raises:
        InvalidSample: audio_start or audio_end make no interval.
        MediaTooLarge: longer than `media.max_audio_s`, by the header, before decoding.
        MediaEmpty: no sound track, no samples, or none in the interval.
        MediaCorrupt: not an audio file that is read here, truncated, or not finite.
        MediaError: fetching failed (see `read_media`).
    """
    name = media_name(part)
    with media_path(part, options) as path:
        with path.open("rb") as file:
            kind = check_kind(file.read(HEAD_BYTES), "audio", name)
            check_complete(file, kind, name)
            if kind in TRACKS:
                sound = _read_track(path, file, kind, part, options)
            else:
                sound = _read_file(file, kind, part, options)
        sha256 = sha256_of(path)
    notes: list[str] = []
    waveform = to_model_rate(sound.mono, sound.rate, rules.sample_rate, name, notes)
    return DecodedAudio(
        waveform, rules.sample_rate, sound.start_s, sound.duration_s, sha256, tuple(notes)
    )


def _read_track(
    path: Path, file: BinaryIO, kind: Kind, part: Part, options: MediaOptions
) -> _Sound:
    """The sound track of a container, which FFmpeg decodes whole."""
    name = media_name(part)
    told_s, is_exact = sound_end_s(file, kind)
    if is_exact and not told_s:
        raise MediaEmpty(f"{name}: no sound track, or an empty one")
    _check_duration(told_s, options, name)
    track = read_native(path, name, "leave it out")
    if track is None:
        raise MediaEmpty(f"{name}: no sound track, or an empty one")
    mono, rate = track.mono, track.rate
    if is_exact:
        mono = track.cut_to(told_s, name)
    _check_duration(len(mono) / rate, options, name)
    first, end = _asked_frames(part, len(mono), rate, name)
    return _Sound(mono[first:end], rate, first / rate, len(mono) / rate)


def _read_file(file: BinaryIO, kind: Kind | None, part: Part, options: MediaOptions) -> _Sound:
    """What libsndfile reads."""
    import soundfile

    name = media_name(part)
    try:
        # By its descriptor: a name that ends in .raw would count for more than the file's bytes.
        with soundfile.SoundFile(os.dup(file.fileno()), closefd=True) as sound:
            duration_s = _checked_duration(sound, options, name)
            first, end = _asked_frames(part, sound.frames, sound.samplerate, name)
            mono = _read_mono(sound, first, end - first, name)
            return _Sound(mono, sound.samplerate, first / sound.samplerate, duration_s)
    except soundfile.SoundFileError as error:
        # LibsndfileError's own text names a memory address.
        cause = getattr(error, "error_string", str(error))
        raise MediaCorrupt(
            f"{name}: cannot be read as audio ({kind.name if kind else 'unknown format'}: "
            f"{cause}); convert it to WAV, FLAC, MP3, OGG or M4A"
        ) from error


def _asked_frames(part: Part, n_frames: int, rate: int, name: str) -> tuple[int, int]:
    """The samples [first, end) that a part's options ask for."""
    asked = part.options
    start_s, end_s = cut_range(asked.audio_start, asked.audio_end, n_frames / rate, name)
    return round(start_s * rate), round(end_s * rate)


def _checked_duration(sound: SoundFile, options: MediaOptions, name: str) -> float:
    """Seconds of a file by its header."""
    if sound.frames >= _UNKNOWN_LENGTH:
        raise MediaCorrupt(f"{name}: its header does not tell its length; encode it again")
    if sound.frames <= 0:
        raise MediaEmpty(f"{name}: no audio samples")
    duration_s = float(sound.frames / sound.samplerate)
    _check_duration(duration_s, options, name)
    return duration_s


def _check_duration(duration_s: float, options: MediaOptions, name: str) -> None:
    if duration_s > options.max_audio_s:
        raise MediaTooLarge(
            f"{name}: {duration_s:,.1f} s, above media.max_audio_s={options.max_audio_s:,.1f}; "
            "raise the limit in the config or cut the audio"
        )


def _read_mono(sound: SoundFile, first: int, n_frames: int, name: str) -> Float32:
    """Frames [first, first + n_frames) with their channels averaged."""
    sound.seek(first)
    blocks = [np.empty(0, np.float32)]
    n_read = 0
    while n_read < n_frames:
        block = sound.read(min(_BLOCK, n_frames - n_read), dtype="float32", always_2d=True)
        if not len(block):
            break
        # Infinities of both signs make a NaN, which `to_model_rate` reports.
        with np.errstate(invalid="ignore", over="ignore"):
            blocks.append(block.mean(axis=1, dtype=np.float32))
        n_read += len(block)
        still_working()
    slack = _MP3_SLACK if sound.format == "MP3" else 0
    if n_read < n_frames - slack:
        raise MediaCorrupt(
            f"{name}: truncated: {n_read:,} of {n_frames:,} samples could be read; "
            "copy it again from its source"
        )
    return np.concatenate(blocks)
