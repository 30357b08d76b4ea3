"""Decode audio to one channel of float32 at the model's sample rate."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import MediaCorrupt, MediaEmpty, MediaTooLarge
from omnitrace_core.media.containers import mp3
from omnitrace_core.media.containers.sniff import (
    HEAD_BYTES,
    MP3,
    TRACKS,
    Kind,
    check_complete,
    check_kind,
)
from omnitrace_core.media.containers.splice import Splice
from omnitrace_core.media.fetching.fetch import media_path, sha256_of
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media.progress.media_times import importing
from omnitrace_core.media.sizes import check_decoded
from omnitrace_core.media.sound_length import sound_end_s
from omnitrace_core.media.track import read_native
from omnitrace_core.media.waveform import SAMPLE_BYTES, cut_range, to_model_rate
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Float32, Part

if TYPE_CHECKING:
    from soundfile import SoundFile

# Frames read at once: limits the memory of files with many channels until they are mixed to one.
_BLOCK = 1 << 18
# mpg123 returns up to this many samples less, if frames need data from before a cut.
_MP3_SLACK = 4 * 1152
# libsndfile returns this length if the file does not contain it.
_UNKNOWN_LENGTH = 1 << 62


@dataclass(frozen=True, slots=True)
class _Sound:
    """An interval of a file's sound.

    mono: [n_samples] float32 at `rate` Hz. It begins at `start_s`; the whole sound lasts
    `duration_s`.
    """

    mono: Float32
    rate: int
    start_s: float
    duration_s: float


def decode_audio(part: Part, options: MediaOptions, rules: MediaRules) -> DecodedAudio:
    """Fetch and decode an audio part, cut to its audio_start and audio_end.

    MP4, M4A, MOV, Matroska, WebM and bare AAC files may also have pictures: their sound track is
    decoded.

    Raises:
        InvalidSample: audio_start and audio_end do not form a valid interval.
        MediaTooLarge: longer than `media.max_audio_s`, by the header, before decoding; or above
            `media.max_decoded_mib`.
        MediaEmpty: no sound track, no samples, or none in the interval.
        MediaCorrupt: not a readable audio file, truncated, or samples that are not finite.
        MediaError: fetching failed (see `read_media`).
    """
    name = media_name(part)
    with media_path(part, options) as path:
        with path.open("rb") as file:
            kind = check_kind(file.read(HEAD_BYTES), "audio", name)
            notes = list(check_complete(file, kind, name))
            if kind in TRACKS:
                sound = _read_track(path, file, kind, part, options, rules)
            else:
                sound = _read_file(file, kind, part, options, rules)
        sha256 = sha256_of(path)
    waveform = to_model_rate(sound.mono, sound.rate, rules.sample_rate, name, notes)
    return DecodedAudio(
        waveform, rules.sample_rate, sound.start_s, sound.duration_s, sha256, tuple(notes)
    )


def _read_track(
    path: Path,
    file: BinaryIO,
    kind: Kind,
    part: Part,
    options: MediaOptions,
    rules: MediaRules,
) -> _Sound:
    """Decode the sound track of a container; FFmpeg decodes all of it."""
    name = media_name(part)
    declared_s, is_exact = sound_end_s(file, kind, name)
    if is_exact and not declared_s:
        raise MediaEmpty(f"{name}: no sound track, or an empty one")
    _check_duration(declared_s, options, name)
    track = read_native(path, name, "leave it out")
    if track is None:
        raise MediaEmpty(f"{name}: no sound track, or an empty one")
    mono, rate = track.mono, track.rate
    if is_exact:
        mono = track.cut_to(declared_s, name)
    _check_duration(len(mono) / rate, options, name)
    first, end = _frame_range(part, len(mono), rate, name)
    _check_decoded((end - first) / rate, part, options, rules)
    return _Sound(mono[first:end], rate, first / rate, len(mono) / rate)


def _read_file(
    file: BinaryIO, kind: Kind | None, part: Part, options: MediaOptions, rules: MediaRules
) -> _Sound:
    """Decode a file with libsndfile."""
    with importing():
        import soundfile

    name = media_name(part)
    source = _source_of(file, kind)
    try:
        with soundfile.SoundFile(source, closefd=True) as sound:
            n_frames, rate = sound.frames, sound.samplerate
            _check_length(n_frames, rate, options, name)
            first, end = _frame_range(part, n_frames, rate, name)
            _check_decoded((end - first) / rate, part, options, rules)
            mono = _read_mono(sound, first, end - first, name)
            return _Sound(mono, rate, first / rate, n_frames / rate)
    except soundfile.SoundFileError as error:
        # LibsndfileError's own text names a memory address.
        cause = getattr(error, "error_string", str(error))
        raise MediaCorrupt(
            f"{name}: cannot be read as audio ({kind.name if kind else 'unknown format'}: "
            f"{cause}); convert it to WAV, FLAC, MP3, OGG or M4A"
        ) from error


def _source_of(file: BinaryIO, kind: Kind | None) -> int | Splice:
    """What libsndfile reads: the file; an MP3 file without a Xing header gets one.

    Without it libsndfile would only estimate the length.
    """
    if kind is MP3:
        frames, _ = mp3.frames(file, file.seek(0, 2))
        if not frames.is_told:
            return Splice(frames.header(), file, frames.start, frames.end)
    # By descriptor: by name, libsndfile would read any file that ends in .raw as raw samples.
    descriptor = os.dup(file.fileno())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _frame_range(part: Part, n_frames: int, rate: int, name: str) -> tuple[int, int]:
    """First and end (exclusive) frame of the interval that a part's options select."""
    start, end = part.options.audio_start, part.options.audio_end
    start_s, end_s = cut_range(start, end, n_frames / rate, name)
    return round(start_s * rate), round(end_s * rate)


def _check_length(n_frames: int, rate: int, options: MediaOptions, name: str) -> None:
    """Check the length that a file's header declares."""
    if n_frames >= _UNKNOWN_LENGTH:
        raise MediaCorrupt(f"{name}: its header does not contain its length; encode it again")
    if n_frames <= 0:
        raise MediaEmpty(f"{name}: no audio samples")
    _check_duration(n_frames / rate, options, name)


def _check_duration(duration_s: float, options: MediaOptions, name: str) -> None:
    if duration_s > options.max_audio_s:
        raise MediaTooLarge(
            f"{name}: {duration_s:,.1f} s, above media.max_audio_s={options.max_audio_s:,.1f}; "
            "raise the limit in the config or cut the audio"
        )


def _check_decoded(length_s: float, part: Part, options: MediaOptions, rules: MediaRules) -> None:
    n_bytes = length_s * rules.sample_rate * SAMPLE_BYTES
    check_decoded(n_bytes, part.options, options, media_name(part))


def _read_mono(sound: SoundFile, first: int, n_frames: int, name: str) -> Float32:
    """Read frames [first, first + n_frames) and average their channels: [n_frames] float32."""
    sound.seek(first)
    blocks = [np.empty(0, np.float32)]
    n_read = 0
    while n_read < n_frames:
        block = sound.read(min(_BLOCK, n_frames - n_read), dtype="float32", always_2d=True)
        if not len(block):
            break
        # Infinities of both signs average to a NaN, which `to_model_rate` reports.
        with np.errstate(invalid="ignore", over="ignore"):
            blocks.append(block.mean(axis=1, dtype=np.float32))
        n_read += len(block)
        report_progress()
    slack = _MP3_SLACK if sound.format == "MP3" else 0
    if n_read < n_frames - slack:
        raise MediaCorrupt(
            f"{name}: truncated: {n_read:,} of {n_frames:,} samples could be read; "
            "copy it again from its source"
        )
    return np.concatenate(blocks)
