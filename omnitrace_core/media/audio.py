"""Decode audio to one channel of float32 at the model's sample rate."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

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
from omnitrace_core.media.fetching.fetch import media_path, sha256_of
from omnitrace_core.media.progress.media_times import importing
from omnitrace_core.media.sizes import check_decoded
from omnitrace_core.media.sound.mp3_frames import record_pieces
from omnitrace_core.media.sound.track import Request, Sound, check_track_number, read_sound
from omnitrace_core.media.sound.waveform import SAMPLE_BYTES, Interval, Recorder
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

if TYPE_CHECKING:
    from soundfile import SoundFile

# libsndfile returns this length if the file does not contain it.
_UNKNOWN_LENGTH = 1 << 62
# Times are rounded to samples.
_ROUNDED_S = 0.001
# The longest frame of MPEG audio in samples; libsndfile's count in WAV may be off by less.
_MPEG_FRAME = 1152


def decode_audio(part: Part, options: MediaOptions, rules: MediaRules) -> DecodedAudio:
    """Fetch and decode an audio part, cut to its audio_start and audio_end.

    Containers such as MP4, M4A, Matroska, WebM, AVI and FLV may also have pictures: their sound
    track is decoded, the one that the option audio_track names or else the default one.

    Raises:
        InvalidSample: audio_start and audio_end do not form a valid interval, or there is no track
            of the number audio_track.
        MediaTooLarge: longer than `media.max_audio_s`, by the header, before decoding; or above
            `media.max_decoded_mib`.
        MediaEmpty: no sound track, no samples, or none in the interval.
        MediaCorrupt: not a readable audio file, truncated, or samples that are not finite.
        MediaError: fetching failed (see `read_media`).
    """
    name = media_name(part)
    request = _request_of(part, options, rules, name)
    with media_path(part, options) as path:
        with path.open("rb") as file:
            kind = check_kind(file.read(HEAD_BYTES), "audio", name)
            notes = check_complete(file, kind, name)
            sound = _read(file, kind, request)
        sha256 = sha256_of(path)
    late_s = sound.start_s - request.interval.start_s
    if late_s > _ROUNDED_S:
        clock = f"the file begins at {sound.start_s:.2f} s of its clock, which is kept"
        notes, interval = (*notes, clock), replace(request.interval, start_s=sound.start_s)
    else:
        interval = request.interval
    notes = (*notes, *sound.notes, *interval.notes(sound.duration_s))
    return DecodedAudio(
        sound.waveform, rules.sample_rate, sound.start_s, sound.duration_s, sha256, notes
    )


def _request_of(part: Part, options: MediaOptions, rules: MediaRules, name: str) -> Request:
    chosen = part.options

    def too_long(duration_s: float) -> MediaTooLarge:
        return MediaTooLarge(
            f"{name}: {duration_s:,.1f} s, above media.max_audio_s={options.max_audio_s:,.1f}; "
            "raise the limit in the config or cut the audio"
        )

    return Request(
        name,
        Interval.chosen(chosen.audio_start, chosen.audio_end, options.max_heard_s, name),
        rules.sample_rate,
        chosen.audio_track,
        options.max_audio_s,
        too_long,
        lambda n_bytes: check_decoded(n_bytes, chosen, options, name),
        "leave it out",
    )


def _read(file: BinaryIO, kind: Kind | None, request: Request) -> Sound:
    if kind in TRACKS:
        sound = read_sound(file, kind, request)
        if sound is None:
            raise MediaEmpty(f"{request.name}: no sound track, or an empty one")
        request.interval.check_not_empty(sound.duration_s, request.name)
        if not len(sound.waveform):
            raise MediaEmpty(
                f"{request.name}: its sound begins at {sound.start_s:.3f} s, so nothing is before "
                f"{request.interval.end_s} s"
            )
        return sound
    check_track_number(request.track, 1, request.name)
    return _read_mp3(file, request) if kind is MP3 else _read_file(file, kind, request)


def _read_mp3(file: BinaryIO, request: Request) -> Sound:
    pieces, _ = mp3.pieces(file, file.seek(0, 2))
    rate, n_samples = pieces[0].rate, sum(piece.n_samples for piece in pieces)
    recorder = _recorder_for(n_samples, rate, request)
    record_pieces(file, pieces, recorder, request.name)
    sound = _sound_of(recorder, n_samples, rate)
    if len(pieces) > 1:
        joined = f"{len(pieces)} MP3 files joined to one: they are heard one after the other"
        return replace(sound, notes=(joined, *sound.notes))
    return sound


def _read_file(file: BinaryIO, kind: Kind | None, request: Request) -> Sound:
    """Decode a file with libsndfile."""
    with importing():
        import soundfile

    name = request.name
    # By descriptor: by name, libsndfile would read any file that ends in .raw as raw samples.
    descriptor = os.dup(file.fileno())
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        with soundfile.SoundFile(descriptor, closefd=True) as sound:
            n_samples, rate = sound.frames, sound.samplerate
            if n_samples >= _UNKNOWN_LENGTH:
                raise MediaCorrupt(
                    f"{name}: its header does not contain its length; encode it again"
                )
            recorder = _recorder_for(n_samples, rate, request)
            end = round(request.interval.heard_end_s(n_samples / rate) * rate)
            _record(sound, recorder, end, name)
            return _sound_of(recorder, recorder.n_samples if end == n_samples else n_samples, rate)
    except soundfile.SoundFileError as error:
        # LibsndfileError's own text names a memory address.
        cause = getattr(error, "error_string", str(error))
        raise MediaCorrupt(
            f"{name}: cannot be read as audio ({kind.name if kind else 'unknown format'}: "
            f"{cause}); convert it to WAV, FLAC, MP3, OGG or M4A"
        ) from error


def _recorder_for(n_samples: int, rate: int, request: Request) -> Recorder:
    """What records a sound whose length is known, after a check of the limits.

    Raises:
        MediaEmpty: no samples, or none in the interval.
        MediaTooLarge: too long, or too large when decoded.
    """
    duration_s, interval = n_samples / rate, request.interval
    if duration_s > request.limit_s:
        raise request.too_long(duration_s)
    interval.check_not_empty(duration_s, request.name)
    length_s = interval.heard_end_s(duration_s) - interval.start_s
    request.check_size(length_s * request.model_rate * SAMPLE_BYTES)
    return Recorder(rate, request.model_rate, interval, request.name, request.check_size)


def _sound_of(recorder: Recorder, n_samples: int, rate: int) -> Sound:
    waveform, notes = recorder.waveform()
    return Sound(waveform, recorder.first / rate, n_samples / rate, rate, notes=tuple(notes))


def _record(sound: SoundFile, recorder: Recorder, end: int, name: str) -> None:
    """Give a recorder the samples from its first one up to `end`, a second at a time."""
    recorder.n_samples = sound.seek(recorder.first)
    while recorder.n_samples < end:
        n = min(sound.samplerate, end - recorder.n_samples)
        block = sound.read(n, dtype="float32", always_2d=True)
        if not len(block):
            is_mpeg = sound.format == "WAV" and sound.subtype.startswith("MPEG")
            if is_mpeg and end - recorder.n_samples < _MPEG_FRAME and recorder.n_samples:
                return
            raise MediaCorrupt(
                f"{name}: truncated: {recorder.n_samples:,} of {end:,} samples could be read; "
                "copy it again from its source"
            )
        recorder.add(block.T)
