"""A decoded sound as speech models take it: at 16 kHz, or the stretch between two times."""

from __future__ import annotations

from dataclasses import replace

from omnitrace_core.records import DecodedAudio, Float32

RATE = 16_000


def at_rate(audio: DecodedAudio) -> Float32:
    """The waveform at 16 kHz: [n_samples] float32."""
    if audio.sample_rate == RATE:
        return audio.waveform
    import librosa

    resampled: Float32 = librosa.resample(
        audio.waveform, orig_sr=audio.sample_rate, target_sr=RATE, res_type="soxr_hq"
    )
    return resampled


def resampled(audio: DecodedAudio) -> DecodedAudio:
    """The same sound at 16 kHz, so that what follows need not resample it again."""
    if audio.sample_rate == RATE:
        return audio
    return replace(audio, waveform=at_rate(audio), sample_rate=RATE)


def end_of(audio: DecodedAudio) -> float:
    """Where the decoded stretch ends, in seconds of the original file."""
    return min(audio.start_s + len(audio.waveform) / audio.sample_rate, audio.duration_s)
