"""Audio files: one channel of float32 at the model's sample rate."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from omnitrace_core.errors import InvalidSample, MediaCorrupt, MediaEmpty, MediaTooLarge
from omnitrace_core.media.container import HEAD_BYTES, check_complete, check_kind
from omnitrace_core.media.fetch import media_name, read_media, sha256_of
from omnitrace_core.media.rules import MediaRules
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


def decode_audio(part: Part, options: MediaOptions, rules: MediaRules) -> DecodedAudio:
    """Fetch and decode an audio part, cut to its audio_start and audio_end.

    Raises:
        InvalidSample: audio_start or audio_end make no interval.
        MediaTooLarge: longer than `media.max_audio_s`, by the header, before decoding.
        MediaEmpty: no samples, or none in the interval.
        MediaCorrupt: not an audio file that libsndfile reads, truncated, or not finite.
        MediaError: fetching failed (see `read_media`).
    """
    import soundfile

    name = media_name(part)
    content = read_media(part, options)
    kind = check_kind(content[:HEAD_BYTES], "audio", name)
    check_complete(io.BytesIO(content), kind, name)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            duration_s = _checked_duration(sound, options, name)
            rate = sound.samplerate
            start_s, end_s = cut_range(
                part.options.audio_start, part.options.audio_end, duration_s, name
            )
            first = round(start_s * rate)
            mono = _read_mono(sound, first, round(end_s * rate) - first, name)
    except soundfile.SoundFileError as error:
        # LibsndfileError's own text names a memory address.
        cause = getattr(error, "error_string", str(error))
        raise MediaCorrupt(
            f"{name}: cannot be read as audio ({kind.name if kind else 'unknown format'}: "
            f"{cause}); convert it to WAV, FLAC, MP3 or OGG"
        ) from error
    notes: list[str] = []
    waveform = to_model_rate(mono, rate, rules.sample_rate, name, notes)
    return DecodedAudio(
        waveform, rules.sample_rate, first / rate, duration_s, sha256_of(content), tuple(notes)
    )


def cut_range(
    start: float | None, end: float | None, duration_s: float, name: str
) -> tuple[float, float]:
    """The interval of [0, duration_s] that a part's start and end options ask for.

    Raises:
        InvalidSample: negative, or the end is not after the start.
        MediaEmpty: it begins after the media ends.
    """
    start_s = 0.0 if start is None else start
    end_s = duration_s if end is None else min(end, duration_s)
    if start_s < 0 or (end is not None and not start_s < end):
        raise InvalidSample(f"{name}: [{start}, {end}] s is no interval; start must be before end")
    if start_s >= end_s:
        raise MediaEmpty(f"{name}: lasts {duration_s:.3f} s, nothing is left from {start_s} s on")
    return start_s, end_s


def to_model_rate(
    mono: Float32, rate: int, model_rate: int, name: str, notes: list[str]
) -> Float32:
    """A waveform at the model's sample rate, in [-1, 1]; what was clipped is added to `notes`.

    Raises:
        MediaCorrupt: samples that are not finite numbers.
        MediaEmpty: no samples.
    """
    if not mono.size:
        raise MediaEmpty(f"{name}: no audio samples")
    if not np.isfinite(mono).all():
        raise MediaCorrupt(f"{name}: the audio has samples that are not finite numbers")
    if float(np.abs(mono).max()) > 1:
        notes.append("audio above full scale clipped")
    if rate != model_rate:
        import librosa

        # Rounded down: times worked out from the waveform must not lie beyond the file's end.
        n_samples = max(1, mono.size * model_rate // rate)
        mono = librosa.resample(mono, orig_sr=rate, target_sr=model_rate, res_type="soxr_hq")
        mono = mono[:n_samples]
    return np.clip(mono, -1.0, 1.0).astype(np.float32)


def _checked_duration(sound: SoundFile, options: MediaOptions, name: str) -> float:
    """Seconds of a file by its header."""
    if sound.frames >= _UNKNOWN_LENGTH:
        raise MediaCorrupt(f"{name}: its header does not tell its length; encode it again")
    if sound.frames <= 0:
        raise MediaEmpty(f"{name}: no audio samples")
    duration_s = float(sound.frames / sound.samplerate)
    if duration_s > options.max_audio_s:
        raise MediaTooLarge(
            f"{name}: {duration_s:,.1f} s, above media.max_audio_s={options.max_audio_s:,.1f}; "
            "raise the limit in the config or cut the audio"
        )
    return duration_s


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
    slack = _MP3_SLACK if sound.format == "MP3" else 0
    if n_read < n_frames - slack:
        raise MediaCorrupt(
            f"{name}: truncated: {n_read:,} of {n_frames:,} samples could be read; "
            "copy it again from its source"
        )
    return np.concatenate(blocks)
